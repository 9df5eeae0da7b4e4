// Follows the transparency log of a running service with Go's own sumdb
// (golang.org/x/mod/sumdb: tlog and note) and nothing of ours: heads, tiles,
// entry bundles, proofs, consistency, and the entries of the documentation.
//
//	verify -service URL -vkey KEY -docs docs/TRANSPARENCY.md
//
// JWT_SECRET is taken from the environment. Ends with 0 when all is right.
package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

var (
	service = flag.String("service", "", "address of the service")
	vkey    = flag.String("vkey", "", "verifier key of the log")
	docs    = flag.String("docs", "", "docs/TRANSPARENCY.md")
)

func main() {
	flag.Parse()
	checkDocs()
	verifier, err := note.NewVerifier(*vkey)
	must(err)
	log := &client{verifiers: note.VerifierList(verifier), token: auditor()}

	tree := log.open(log.get("/tlog/checkpoint"))
	hashes := tlog.TileHashReader(tree, log)
	entries := log.entries(tree.N)
	indexes := make([]int64, tree.N)
	for i := range indexes {
		indexes[i] = tlog.StoredHashIndex(0, int64(i))
	}
	// Go checks every tile against the signed head.
	leaves, err := hashes.ReadHashes(indexes)
	must(err)
	for i, leaf := range leaves {
		if tlog.RecordHash(entries[i]) != leaf {
			fail("entry %d is not what its leaf is the hash of", i)
		}
	}
	ok("%d leaves of the tiles lead to the signed head, and are the hashes of the bundles' entries", tree.N)

	proofs := log.checkProofs(tree, entries)
	ok("%d proofs of events and deliveries", proofs)
	ok("%d proofs of consistency", log.checkConsistency(tree))
}

type client struct {
	verifiers note.Verifiers
	token     string
}

// ask answers with the status too.
func (c *client) ask(path string) (int, []byte) {
	request, err := http.NewRequest("GET", *service+path, nil)
	must(err)
	if !strings.HasPrefix(path, "/tlog/checkpoint") && !regexp.MustCompile(`^/tlog/tile/\d`).MatchString(path) {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	answer, err := http.DefaultClient.Do(request)
	must(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	must(err)
	return answer.StatusCode, body
}

func (c *client) get(path string) []byte {
	status, body := c.ask(path)
	if status != 200 {
		fail("GET %s answered %d: %s", path, status, body)
	}
	return body
}

func (c *client) data(path string, into interface{}) {
	wrapped := struct {
		Data interface{} `json:"data"`
	}{into}
	must(json.Unmarshal(c.get(path), &wrapped))
}

// open believes a checkpoint that is signed by the key.
func (c *client) open(text []byte) tlog.Tree {
	opened, err := note.Open(text, c.verifiers)
	must(err)
	lines := strings.SplitN(opened.Text, "\n", 4)
	size, err := strconv.ParseInt(lines[1], 10, 64)
	must(err)
	root, err := tlog.ParseHash(lines[2])
	must(err)
	return tlog.Tree{N: size, Hash: root}
}

// Height, ReadTiles and SaveTiles are what Go's TileHashReader reads by.
func (c *client) Height() int { return 8 }

func (c *client) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var data [][]byte
	for _, tile := range tiles {
		data = append(data, c.get("/tlog/tile/"+strings.TrimPrefix(tile.Path(), "tile/8/")))
	}
	return data, nil
}

func (c *client) SaveTiles([]tlog.Tile, [][]byte) {}

// entries reads all bundles.
func (c *client) entries(size int64) [][]byte {
	var entries [][]byte
	for begin := int64(0); begin < size; begin += 256 {
		tile := tlog.Tile{H: 8, L: -1, N: begin / 256, W: 256}
		if size-begin < 256 {
			tile.W = int(size - begin)
		}
		bundle := c.get("/tlog/tile/entries/" + strings.TrimPrefix(tile.Path(), "tile/8/data/"))
		for len(bundle) > 0 {
			length := int(binary.BigEndian.Uint16(bundle))
			entries = append(entries, bundle[2:2+length])
			bundle = bundle[2+length:]
		}
	}
	if int64(len(entries)) != size {
		fail("the bundles have %d entries, the log %d", len(entries), size)
	}
	return entries
}

// checkProofs checks the proof of every event and delivery, all against entries
// that are known to be in the log.
func (c *client) checkProofs(tree tlog.Tree, entries [][]byte) int {
	count := 0
	for _, entry := range entries {
		form, fields := parse(entry)
		var path string
		switch form {
		case "bitacora.event/v1":
			path = fmt.Sprintf("/api/ledger/events/%d/proof", binary.BigEndian.Uint64(fields[0]))
		case "bitacora.delivery/v1":
			id := hex.EncodeToString(fields[0])
			path = fmt.Sprintf("/api/deliveries/%s-%s-%s-%s-%s/proof", id[:8], id[8:12], id[12:16], id[16:20], id[20:])
		default:
			fail("an entry of the form %q", form)
		}
		c.checkProof(c.get(path), entry)
		count++
	}
	return count
}

func (c *client) checkProof(text, entry []byte) {
	parts := strings.SplitN(string(text), "\n\n", 2)
	lines := strings.Split(parts[0], "\n")
	if lines[0] != "c2sp.org/tlog-proof@v1" {
		fail("a proof begins with %q", lines[0])
	}
	extra, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	must(err)
	if !bytes.Equal(extra, entry) {
		fail("a proof brings another entry than the bundle")
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	must(err)
	var proof tlog.RecordProof
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		must(err)
		proof = append(proof, hash)
	}
	tree := c.open([]byte(parts[1]))
	must(tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(entry)))
	// And it proves nothing else.
	if tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash([]byte("x"))) == nil {
		fail("a proof proves anything")
	}
}

// checkConsistency checks that the head begins with every one before it.
func (c *client) checkConsistency(tree tlog.Tree) int {
	var listed []struct {
		Checkpoint string `json:"checkpoint"`
	}
	c.data("/api/ledger/checkpoints?limit=200", &listed)
	if len(listed) < 2 {
		fail("there is one head only: nothing to compare")
	}
	count := 0
	for _, one := range listed {
		old := c.open([]byte(one.Checkpoint))
		if old.N > tree.N {
			continue
		}
		var told struct {
			Proof []tlog.Hash `json:"proof"`
		}
		c.data(fmt.Sprintf("/api/ledger/consistency?from=%d&to=%d", old.N, tree.N), &told)
		must(tlog.CheckTree(told.Proof, tree.N, tree.Hash, old.N, old.Hash))
		count++
	}
	return count
}

// parse cuts an entry into its form and its fields; null is nil.
func parse(entry []byte) (string, [][]byte) {
	end := bytes.IndexByte(entry, '\n')
	form, rest := string(entry[:end]), entry[end+1:]
	var fields [][]byte
	for len(rest) > 0 {
		length := int32(binary.BigEndian.Uint32(rest))
		rest = rest[4:]
		if length < 0 {
			fields = append(fields, nil)
			continue
		}
		fields = append(fields, rest[:length])
		rest = rest[length:]
	}
	return form, fields
}

// checkDocs makes the entries of the documentation from its lines of JSON, by
// its words alone.
func checkDocs() {
	text, err := os.ReadFile(*docs)
	must(err)
	lines := regexp.MustCompile(`(?m)^\{"kind":.*$`).FindAll(text, -1)
	if len(lines) != 2 {
		fail("%s has %d examples", *docs, len(lines))
	}
	for _, line := range lines {
		leaf := tlog.RecordHash(entryOf(line)).String()
		if !bytes.Contains(text, []byte("\n"+leaf+"\n")) {
			fail("%s has not the leaf of its example: %s", *docs, leaf)
		}
	}
	ok("the documentation's examples")
}

var columns = map[string]string{
	"event": "position:n aggregate_type:t aggregate_id:t sequence:n event_type:t event_version:t payload:d metadata:d " +
		"occurred_at:at recorded_at:at delivery_id:u",
	"delivery": "id:u seq:n provider:t route:t verdict:t reason:d authentication:t dedup_key:b repeat_key:b duplicate_of:u " +
		"reprocess_of:u position:n received_at:at remote_addr:d request_target:d headers:d body:bd body_bytes:n",
}

func entryOf(line []byte) []byte {
	var row map[string]interface{}
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.UseNumber()
	must(decoder.Decode(&row))
	kind := row["kind"].(string)
	entry := []byte("bitacora." + kind + "/v1\n")
	for _, column := range strings.Fields(columns[kind]) {
		name, form := strings.Split(column, ":")[0], strings.Split(column, ":")[1]
		value := row[name]
		if value == nil {
			entry = append(entry, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		field := fieldOf(form, fmt.Sprint(value))
		entry = binary.BigEndian.AppendUint32(entry, uint32(len(field)))
		entry = append(entry, field...)
	}
	return entry
}

func fieldOf(form, value string) []byte {
	number := make([]byte, 8)
	switch form {
	case "n":
		n, err := strconv.ParseInt(value, 10, 64)
		must(err)
		binary.BigEndian.PutUint64(number, uint64(n))
		return number
	case "at":
		at, err := time.Parse(time.RFC3339Nano, value)
		must(err)
		binary.BigEndian.PutUint64(number, uint64(at.UnixMicro()))
		return number
	case "u":
		id, err := hex.DecodeString(strings.ReplaceAll(value, "-", ""))
		must(err)
		return id
	case "d":
		digest := sha256.Sum256([]byte(value))
		return digest[:]
	case "b", "bd":
		raw, err := base64.StdEncoding.DecodeString(value)
		must(err)
		if form == "b" {
			return raw
		}
		digest := sha256.Sum256(raw)
		return digest[:]
	}
	return []byte(value)
}

// auditor is a login token.
func auditor() string {
	encode := base64.RawURLEncoding.EncodeToString
	claims := fmt.Sprintf(`{"sub":"7","role":"auditor","iat":%d,"exp":%d}`, time.Now().Unix(), time.Now().Unix()+3600)
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode([]byte(claims))
	mac := hmac.New(sha256.New, []byte(os.Getenv("JWT_SECRET")))
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}

func ok(format string, args ...interface{}) {
	fmt.Printf("ok    "+format+"\n", args...)
}

func fail(format string, args ...interface{}) {
	fmt.Printf("FAIL  "+format+"\n", args...)
	os.Exit(1)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
