// Package tool hides what a step runs that asks no engine: a request to a URL, or a function of a WASM module.
//
// The decision: a tool is an engine. It has a lane of the queues (endpoint "tool"; its models are "http" and the modules), an inference actor of
// its own with its own limit, and so claims, leases, attempts, retries, quotas and metrics as models have them, and takes no slot from them.
//
//	step's templates ─► task.Call ─► HTTP ─► egress policy, each redirect, too ─► body, 2xx only
//	                            └──► Wasm ─► module by name or SHA-256 ─► stdin ─► sandbox ─► stdout
//	                                           └─ no files, no network, clocks and random numbers that are the same each time
//
// What goes wrong becomes a fault.Kind here. It says nothing about the next call, which is to somebody else: so the limit of these engines
// does not adapt, and their circuit does not open.
//
// Left to others: rendering, and what a step may say (actors/task), when to try again (task.Policy), and which answer keeps to its form (actors/infer).
package tool
