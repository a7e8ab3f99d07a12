// Package placement decides where a cluster's replicas and leaders belong, and who starts the
// cluster. It is pure: values in, values out; no clock, no network. The one file it keeps is a node's
// vote (Voter).
//
//	members seen, expect, votes ──► Found ──► Await · Ask · Start · Withdraw   (a node without a cluster)
//	members, groups, reports    ──► Plan  ──► []Action                         (the coordinator)
//
// # Founding
//
// A new cluster is started by one node: the one with the lowest name among at least `expect` that see each
// other, when `expect` of them voted for it. A node votes for one founder, durably, and never
// when it knows of a cluster. So where expect is more than half of all nodes that exist, two founders would
// need the vote of one node twice. A founder that meets a lower name gives its candidacy up for good
// (a ballot, never used again), which sets its voters free; so votes that are split by chance do not block for ever.
//
// # Placing
//
// Plan compares what is with what should be and names the next steps only, at most one for each shard. It is
// asked again with what is true then, so an action that was lost is decided again, and one that was done is not.
// A move is always: add a learner, let it catch up, promote it, take the lead off the old replica, remove it.
// A dead node's replicas are replaced after the grace time where there is a node for them. Where there is none they stay
// members as long as that costs nothing: of three nodes any two can go on, also the one that was dead for a day.
// No step of ours leaves a shard without a living majority that had one.
package placement
