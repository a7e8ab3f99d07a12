// Package wire holds the one message type that nodes exchange. letter.pb.go is made from letter.proto.
package wire
