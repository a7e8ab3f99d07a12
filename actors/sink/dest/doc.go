// Package dest is where sinks write to: a directory, an S3-compatible store, PostgreSQL, SQLite.
//
//	Policy.Check ── may this node write there? ──► Open ──► Write(batch's name, rows)
//	                                                          ├─ objects:  encode ──► all or nothing, under the batch's name
//	                                                          └─ database: one statement, or one transaction; a row that is there stays
//
// Its one decision: nothing is reached that the node's operator did not name, a directory by a path above it, a host by its name; and a
// secret comes from the environment of the node alone, so that no journal, answer or log has one.
//
// A repeat writes the same object again, or rows that exist; package sink sees to it that it is the same.
package dest
