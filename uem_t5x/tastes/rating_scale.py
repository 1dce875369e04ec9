"""The scale of ratings: half-stars, whole numbers from 1 to 10, and 0 for padding."""

HALF_STARS_PER_STAR = 2
MAX_HALF_STARS = 10
RATING_ROWS = MAX_HALF_STARS + 1  # of a matrix that half-stars select from
