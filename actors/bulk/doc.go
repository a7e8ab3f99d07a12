// Package bulk is a batch of OpenAI's Batch API as a persistent actor: a file of requests in, one task a line, and files of answers and
// errors out. (Package batch is another thing: what goes to an engine together.)
//
//	input file ──► validate ──► feed: lines become tasks ──► they run, retry, end like all tasks
//	                               │ at most window open           │ each end is two index rows, in the commit that ended it
//	                               ▼                               ▼
//	                  cursor, journaled ◄── batch ◄── count: rows behind a journaled cursor for each shard
//	                                          └──► output file: rendered from rows and tasks whenever it is read
//
// Its life, as the lifecycle table has it (a test compares them):
//
//	none        created      -> validating
//	validating  accepted     -> in_progress
//	validating  rejected     -> failed
//	validating  paused       -> validating
//	validating  resumed      -> validating
//	validating  prioritized  -> validating
//	validating  cancel_asked -> cancelling
//	validating  timed_out    -> expiring
//	in_progress progressed   -> in_progress
//	in_progress paused       -> in_progress
//	in_progress resumed      -> in_progress
//	in_progress prioritized  -> in_progress
//	in_progress cancel_asked -> cancelling
//	in_progress timed_out    -> expiring
//	in_progress drained      -> finalizing
//	expiring    progressed   -> expiring
//	expiring    finished     -> expired
//	cancelling  progressed   -> cancelling
//	cancelling  finished     -> cancelled
//	finalizing  finished     -> completed
//	completed   hook_sent    -> completed
//	completed   hook_lost    -> completed
//	completed   hook_gave_up -> completed
//	failed      hook_sent    -> failed
//	failed      hook_lost    -> failed
//	failed      hook_gave_up -> failed
//	expired     hook_sent    -> expired
//	expired     hook_lost    -> expired
//	expired     hook_gave_up -> expired
//	cancelled   hook_sent    -> cancelled
//	cancelled   hook_lost    -> cancelled
//	cancelled   hook_gave_up -> cancelled
//
// The batch's journal has a header, cursors and counts, and never a line: a line is in the input file until it is a task, and in the
// task from then on. So a batch of any length takes the memory of its window. While a batch is not final a timer row wakes it every few
// seconds wherever its shard is owned, and it makes sure that a driver works for it there. All that a driver does may be done twice: a task has
// its id from its line's number, a report says what it follows. A driver that was left over where the shard was before is refused by its epoch.
//
// Left to others: the tasks themselves, and the rows of their lines (actors/task); the files (actors/file); HTTP (node/api/openai).
package bulk
