"""What a recipe takes on TPUs that one does not have."""
