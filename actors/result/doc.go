// Package result is what became of a task as one flat row, and rows as CSV and Parquet: the one shape that exports, database tables
// and files for other programs share.
//
//	task.Record ──► Row ──► CSV · Parquet · a database's table (actors/sink/dest)
//	GET /v1/results ─┘
//
// Its one decision: the columns, their order and their types, which are for ever; new ones come at the end. What a column
// cannot hold is in the JSON of GET /v1/results. An empty text is NULL where there is such a thing.
package result
