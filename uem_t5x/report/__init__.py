"""A page of tables and plots, drawn up from trained and scored runs.

`settings` puts those runs together that differ in their seed alone; `tables` sets them beside the
paper's figures (`paper_results`); `table_plots` and `run_plots` draw in the style of `figures`;
`page` writes it all down.
"""
