package persistence

import "context"

func (s *store) Backup(ctx context.Context, dir string) error { return errClosed }
