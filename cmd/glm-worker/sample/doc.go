// Package sample picks the next token from a model's scores. It is pure but for the random source it is given.
//
//	scores ─► temperature ─► top k ─► top p ─► min p ─► draw
//	   └────► temperature 0: the highest score, the lower id on a tie
//
// One draw takes one number from the source, so equal seeds and equal scores give equal answers, whoever else runs.
package sample
