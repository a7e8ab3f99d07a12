// Package fair decides whose turn it is when an engine has room: which tenant's, and which of its lanes.
//
//	free credit ──► Plan ── tenants by tokens charged, least first ──► lanes of that tenant by priority ──► Grants
//	                 ▲                                                                                        │ charged at once,
//	                 └── Spent (an answer is here: what it truly took) ◄── Settle (what a claim brought) ◄────┘ at the mean
//
// Tenants share by tokens, not by tasks: a tenant is charged when its work is claimed, so what runs counts, and the difference
// is set right when the answer is here. That is start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) with a quantum as
// deficit round robin has it. Who was idle starts level with those that wait, less what they have running, so that it gets the next
// slots until it has its share; but it saves nothing up while it is idle.
//
// Within a tenant a better priority goes first. Ageing gives a lane that was passed over a turn in the end; with a Ratio each
// level gets a share instead.
//
// It is pure: no clock, no lock, no goroutine. What may be claimed, and how, is left to package batch.
package fair
