"""Parts of the report: runs, tables, curves, pictures, alignment maps, and the page around them."""
