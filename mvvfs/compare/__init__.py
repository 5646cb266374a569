"""What changed between two versions of a database: its B-trees compared page by page, rows and schema.

The way of a comparison through the files: `api` (names, moments) → `comparison` (two versions, what is common
to them) → `locate` (which trees the changed pages belong to) → `walk` (a tree, the changed parts of it) →
`merge` (two streams of rows in key order) → `changes` (what comes out), which `script` and `changeset` write
down.  Below these `schema` and `shapes` (what the rows mean), `btree` and `records` (SQLite's file format),
`pages` (the store's pages at a version).

Nothing here opens a database: pages are read through `pagestore.api.Store`.
"""
