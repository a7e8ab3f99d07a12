package mutant

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Edit replaces one expression of one file.
type Edit struct {
	Module   string // of a dependency; "": this module
	File     string // path in the module, with slashes
	Old, New string // Old must be in the file exactly once
}

// apply returns the file's content with the expression replaced.
func (e Edit) apply(src []byte) ([]byte, error) {
	if n := bytes.Count(src, []byte(e.Old)); n != 1 {
		return nil, fmt.Errorf("mutant: %s has %d times %q, and not once: the mutation is to be written anew", e.File, n, e.Old)
	}
	return bytes.Replace(src, []byte(e.Old), []byte(e.New), 1), nil
}

// Build builds the package pkg of the module in root with tags ("": none) and edits, as dir/name. Everything else that it
// writes is in dir too: the changed files, and whole copies of the dependencies that are changed, for which an overlay is not allowed.
func Build(ctx context.Context, root, pkg, tags, dir, name string, edits ...Edit) (binary string, err error) {
	b := build{ctx: ctx, root: root, dir: dir, overlay: map[string]string{}, modules: map[string]string{}}
	for i, e := range edits {
		if err := b.edit(i, e); err != nil {
			return "", err
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": b.overlay})
	if err != nil {
		return "", err
	}
	at := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(at, overlay, 0o600); err != nil {
		return "", err
	}
	binary = filepath.Join(dir, name)
	args := []string{"build", "-tags", tags, "-overlay", at, "-ldflags", "-s -w", "-o", binary}
	if len(b.modules) > 0 {
		mod, err := b.modfile()
		if err != nil {
			return "", err
		}
		args = append(args, "-modfile", mod)
	}
	_, err = b.run(append(args, pkg)...)
	return binary, err
}

type build struct {
	ctx       context.Context
	root, dir string
	overlay   map[string]string // path in root: path of what replaces it
	modules   map[string]string // dependency: folder of its copy
}

func (b *build) run(args ...string) (string, error) {
	cmd := exec.CommandContext(b.ctx, "go", args...)
	cmd.Dir = b.root
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, errs.Bytes())
	}
	return strings.TrimSpace(out.String()), nil
}

func (b *build) edit(i int, e Edit) error {
	from := filepath.Join(b.root, filepath.FromSlash(e.File))
	to := filepath.Join(b.dir, fmt.Sprintf("%d-%s", i, filepath.Base(from)))
	if e.Module != "" {
		module, err := b.copied(e.Module)
		if err != nil {
			return err
		}
		from = filepath.Join(module, filepath.FromSlash(e.File))
		to = from
	} else if earlier, ok := b.overlay[from]; ok { // a second edit of the file
		from, to = earlier, earlier
	}
	src, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if src, err = e.apply(src); err != nil {
		return err
	}
	if from != to {
		b.overlay[from] = to
	}
	return os.WriteFile(to, src, 0o600)
}

// copied returns the folder of a dependency's copy.
func (b *build) copied(module string) (string, error) {
	if dir, ok := b.modules[module]; ok {
		return dir, nil
	}
	src, err := b.run("list", "-m", "-f", "{{.Dir}}", module)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(b.dir, "module-"+filepath.Base(src))
	b.modules[module] = dir
	return dir, copyTree(dir, src)
}

// copyTree copies files and folders so that they can be written, which those of the module cache cannot.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), content, 0o600)
	})
}

// modfile writes a go.mod, and its go.sum, in which the copies replace the dependencies.
func (b *build) modfile() (string, error) {
	mod, err := os.ReadFile(filepath.Join(b.root, "go.mod"))
	if err != nil {
		return "", err
	}
	sum, err := os.ReadFile(filepath.Join(b.root, "go.sum"))
	if err != nil {
		return "", err
	}
	for module, dir := range b.modules {
		mod = fmt.Appendf(mod, "\nreplace %s => %s\n", module, dir)
	}
	at := filepath.Join(b.dir, "mutant")
	if err := os.WriteFile(at+".sum", sum, 0o600); err != nil {
		return "", err
	}
	return at + ".mod", os.WriteFile(at+".mod", mod, 0o600)
}
