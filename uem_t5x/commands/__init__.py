"""The subcommands of `uem-t5x`; nobody imports them but `uem_t5x.cli`'s table."""
