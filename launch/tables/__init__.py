"""Results: tables of finished runs, published figures, and the summary that sets them side by side.

Nothing here needs a cluster. pandas is imported where a table is made.
"""
