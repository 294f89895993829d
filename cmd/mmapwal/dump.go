package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/seed-2fef92ad/raftwal/internal/inspect"
	"github.com/spf13/cobra"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// dumpFlags are the flags of dump.
type dumpFlags struct {
	lookFlags
	from, to uint64
	term     uint64
	types    []string
	limit    uint64
	data     string
	decode   string
	follow   bool
}

func newDump() *cobra.Command {
	var f dumpFlags
	cmd := &cobra.Command{
		Use:   "dump DIR",
		Short: "Print the entries of a log",
		Long: `dump prints the entries of the log in DIR, one per line: index, term, type and data.
It changes nothing and takes no lock: it works beside a live owner, on a log that was
not closed, and on a damaged one: then it prints the entries that can be read, says on
standard error which cannot, and whether there may have been others behind the last one,
and exits with 1; 3 if it could not look. With --json the last line says so.

The data of normal entries is shown as a short preview, text if it is text; --data
shows all of it. Conf changes are shown decoded. --decode pipes the data of each
normal entry to a program of yours, started once by the shell, as one line of
hexadecimal digits, and prints the line that it answers with.

--follow goes on with new entries as they arrive, until it is interrupted. When the
owner replaces entries that were printed, it says so, and prints the new ones.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := errors.Join(f.prepare(), f.check()); err != nil {
				return err
			}
			return failed(f.run(cmd, args[0]))
		},
	}
	f.add(cmd, "print one JSON object per entry and line")
	flags := cmd.Flags()
	flags.Uint64Var(&f.from, "from", 0, "first index (default that of the log)")
	flags.Uint64Var(&f.to, "to", math.MaxUint64, "last index (default that of the log)")
	flags.Lookup("to").DefValue = "0" // which is not shown
	flags.Uint64Var(&f.term, "term", 0, "only entries of this term")
	flags.StringSliceVar(&f.types, "type", nil, "only entries of these types: normal, confchange, confchangev2")
	flags.Uint64Var(&f.limit, "limit", 0, "print so many entries at most (default all)")
	flags.StringVar(&f.data, "data", "", "show data as hex, text, json or len (default a short preview)")
	flags.StringVar(&f.decode, "decode", "", "program that decodes data: a line of hexadecimal digits in, a line of text out")
	flags.BoolVar(&f.follow, "follow", false, "go on with new entries as they arrive")
	return cmd
}

// typeNames are the names of entry types on the command line and in the output.
var typeNames = map[string]raftpb.EntryType{
	"normal": raftpb.EntryNormal, "confchange": raftpb.EntryConfChange, "confchangev2": raftpb.EntryConfChangeV2,
}

func typeName(t uint32) string {
	for name, known := range typeNames {
		if uint32(known) == t {
			return name
		}
	}
	return fmt.Sprintf("type%d", t)
}

// check judges the flags.
func (f *dumpFlags) check() error {
	for _, t := range f.types {
		if _, ok := typeNames[strings.ToLower(t)]; !ok {
			return fmt.Errorf("--type %s: there are normal, confchange and confchangev2", t)
		}
	}
	switch f.data {
	case "", "hex", "text", "json", "len":
	default:
		return fmt.Errorf("--data %s: there are hex, text, json and len", f.data)
	}
	switch {
	case f.decode != "" && f.data != "":
		return errors.New("--data and --decode exclude each other")
	case f.to < f.from:
		return fmt.Errorf("--from %d is beyond --to %d", f.from, f.to)
	}
	return nil
}

// errEnough ends a dump at --limit.
var errEnough = errors.New("enough")

// dumper prints entries.
type dumper struct {
	flags   *dumpFlags
	out     io.Writer
	errs    io.Writer
	decoder *decoder // nil without --decode
	next    uint64   // the index to go on with
	printed uint64
	unread  uint64    // entries that cannot be read
	damaged bool      // something else is
	terms   []termRun // of what was seen, to notice entries that are replaced
}

// termRun is the first of some entries that share a term.
type termRun struct{ first, term uint64 }

func (f *dumpFlags) run(cmd *cobra.Command, dir string) (err error) {
	d := &dumper{flags: f, out: cmd.OutOrStdout(), errs: cmd.ErrOrStderr(), next: f.from}
	if f.decode != "" {
		if d.decoder, err = startDecoder(f.decode, cmd.ErrOrStderr()); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, d.decoder.close()) }()
	}
	if f.follow {
		err = d.follow(cmd, dir)
	} else {
		err = d.all(cmd, dir)
	}
	if errors.Is(err, errEnough) {
		err = nil
	}
	switch {
	case err == nil && d.unread > 0:
		err = fmt.Errorf("%s is damaged: entries that cannot be read: %d", dir, d.unread)
	case err == nil && d.damaged:
		err = fmt.Errorf("%s is damaged; `mmapwal verify` says all that is wrong", dir)
	}
	return err
}

// all prints what the log holds now.
func (d *dumper) all(cmd *cobra.Command, dir string) error {
	l, err := d.flags.look(cmd, dir, false)
	if err != nil {
		return err
	}
	if err := d.sayDamage(l); err != nil {
		return err
	}
	return d.printAll(cmd.Context(), dir, l)
}

// sayDamage says what of the damage is not about single entries.
func (d *dumper) sayDamage(l *inspect.Log) error {
	for _, p := range l.Problems {
		if p.Severity != inspect.Damage || p.Kind == inspect.KindRecord && p.Last <= l.Last {
			continue
		}
		d.damaged = true
		if _, err := fmt.Fprintf(d.errs, "%s: %s\n", placeText(p), p.What); err != nil {
			return err
		}
	}
	if !l.HidesEnd() {
		return nil
	}
	d.damaged = true
	_, err := fmt.Fprintf(d.errs, "the end of the log is damaged: there may have been entries behind %d\n", l.Last)
	return err
}

// printAll prints the entries of l from d.next on. What cannot be read beside a
// live owner may have been compacted or cleared since: then it looks again.
func (d *dumper) printAll(ctx context.Context, dir string, l *inspect.Log) error {
	for again := 0; ; again++ {
		last := again == 3
		err := l.Each(ctx, d.next, d.flags.to, func(e inspect.Entry) error {
			if e.Err != nil && !last {
				return errAgain
			}
			return d.take(e)
		})
		if !errors.Is(err, errAgain) && !errors.Is(err, fs.ErrNotExist) || last {
			return err
		}
		if l, err = d.flags.lookAt(ctx, dir, false, nil); err != nil {
			return err
		}
	}
}

// errAgain asks for another look at the log.
var errAgain = errors.New("look again")

// take prints an entry if it is wanted.
func (d *dumper) take(e inspect.Entry) error {
	d.next = e.Last + 1
	if e.Err != nil {
		d.unread += e.Last - e.Index + 1
		_, err := fmt.Fprintf(d.errs, "%s cannot be read: %v\n", entryText(e), e.Err)
		return err
	}
	if n := len(d.terms); n == 0 || d.terms[n-1].term != e.Term {
		d.terms = append(d.terms, termRun{e.Index, e.Term})
	}
	if !d.wanted(e) {
		return nil
	}
	if err := d.print(e); err != nil {
		return err
	}
	d.printed++
	if d.printed == d.flags.limit {
		return errEnough
	}
	return nil
}

func entryText(e inspect.Entry) string {
	if e.Last > e.Index {
		return fmt.Sprintf("entries %d to %d", e.Index, e.Last)
	}
	return fmt.Sprintf("entry %d", e.Index)
}

func (d *dumper) wanted(e inspect.Entry) bool {
	if d.flags.term != 0 && e.Term != d.flags.term {
		return false
	}
	for _, t := range d.flags.types {
		if uint32(typeNames[strings.ToLower(t)]) == e.Type {
			return true
		}
	}
	return len(d.flags.types) == 0
}

// dumpedEntry is an entry as --json prints it.
type dumpedEntry struct {
	Index   uint64          `json:"index"`
	Term    uint64          `json:"term"`
	Type    string          `json:"type"`
	Bytes   int             `json:"bytes"`
	Cleared bool            `json:"cleared,omitempty"`
	Data    json.RawMessage `json:"data,omitempty"`        // base64, unless --data says otherwise
	Change  json.RawMessage `json:"conf_change,omitempty"` // of a conf change
	Decoded *string         `json:"decoded,omitempty"`     // by --decode
	File    string          `json:"file"`
	Offset  int64           `json:"offset"`
}

func (d *dumper) print(e inspect.Entry) error {
	decoded := ""
	if d.decoder != nil && e.Type == uint32(raftpb.EntryNormal) && len(e.Data) > 0 {
		var err error
		if decoded, err = d.decoder.decode(e.Data); err != nil {
			return fmt.Errorf("entry %d: --decode %s: %w", e.Index, d.flags.decode, err)
		}
	}
	if d.flags.json {
		return d.printJSON(e, decoded)
	}
	text := decoded
	if d.decoder == nil || len(e.Data) == 0 || e.Type != uint32(raftpb.EntryNormal) {
		text = d.dataText(e)
	}
	_, err := fmt.Fprintf(d.out, "%d\t%d\t%s\t%s\n", e.Index, e.Term, typeName(e.Type), text)
	return err
}

func (d *dumper) printJSON(e inspect.Entry, decoded string) error {
	j := dumpedEntry{Index: e.Index, Term: e.Term, Type: typeName(e.Type), Bytes: len(e.Data), Cleared: e.Cleared, File: e.File, Offset: e.Offset}
	j.Change = confChange(e)
	switch {
	case d.decoder != nil && decoded != "":
		j.Decoded = &decoded
	case d.flags.data != "len":
		j.Data = d.dataJSON(e.Data)
	}
	line, err := json.Marshal(j)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(d.out, "%s\n", line)
	return err
}

// dataJSON returns data as JSON: base64, or as --data says.
func (d *dumper) dataJSON(data []byte) json.RawMessage {
	var v any = data
	switch {
	case len(data) == 0:
		return nil
	case d.flags.data == "json" && json.Valid(data):
		v = json.RawMessage(data)
	case d.flags.data == "hex":
		v = hex.EncodeToString(data)
	case d.flags.data == "text":
		v = string(data)
	}
	out, err := json.Marshal(v)
	if err != nil {
		return nil // it cannot fail
	}
	return out
}

// dataText returns what is shown of an entry's data.
func (d *dumper) dataText(e inspect.Entry) string {
	if e.Cleared {
		return "(cleared)"
	}
	if d.flags.data == "" {
		if change := confChange(e); change != nil {
			return string(change)
		}
	}
	switch data := e.Data; d.flags.data {
	case "hex":
		return hex.EncodeToString(data)
	case "text":
		return strings.ToValidUTF8(strconv.Quote(string(data)), "\uFFFD")
	case "len":
		return fmt.Sprint(len(data))
	case "json":
		if json.Valid(data) {
			return compact(data)
		}
		return string(d.dataJSON(data))
	default:
		return preview(data)
	}
}

// preview shows the begin of data: as text if it is text.
func preview(data []byte) string {
	const text, digits = 60, 24 // bytes that are shown
	rest := func(shown int) string {
		if len(data) <= shown {
			return ""
		}
		return fmt.Sprintf(" … (%d bytes)", len(data))
	}
	if isText(data) {
		shown := strings.ToValidUTF8(string(data[:min(text, len(data))]), "") // a character may be cut
		return strconv.Quote(shown) + rest(text)
	}
	return hex.EncodeToString(data[:min(digits, len(data))]) + rest(digits)
}

func isText(data []byte) bool {
	if !utf8.Valid(data) {
		return false
	}
	for _, r := range string(data[:min(len(data), 256)]) {
		if !unicode.IsPrint(r) && !unicode.IsSpace(r) && r != utf8.RuneError {
			return false
		}
	}
	return true
}

// compact returns JSON on one line.
func compact(data []byte) string {
	out, err := json.Marshal(json.RawMessage(data))
	if err != nil {
		return string(data) // it cannot fail
	}
	return string(out)
}

// confChange decodes a conf change; nil if it is none, or cannot be decoded.
func confChange(e inspect.Entry) json.RawMessage {
	var m proto.Message
	switch e.Type {
	case uint32(raftpb.EntryConfChange):
		m = new(raftpb.ConfChange)
	case uint32(raftpb.EntryConfChangeV2):
		m = new(raftpb.ConfChangeV2)
	default:
		return nil
	}
	if proto.Unmarshal(e.Data, m) != nil {
		return nil
	}
	text, err := protojson.Marshal(m)
	if err != nil {
		return nil
	}
	return json.RawMessage(compact(text)) // protojson varies its spaces on purpose
}
