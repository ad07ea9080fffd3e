package courier

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
	_ "modernc.org/sqlite"

	"callserver/internal/testnet/realserver"
	"callserver/signalling/homeserver"
	"callserver/signalling/matrix/device"
	"callserver/signalling/matrix/mediakeys"
	"callserver/signalling/matrixrtc/member"
)

// TestRealMediaKeys takes part in a call of an encrypted room, to which testbed/homeservers/mediakeys.mjs has invited the
// bot and in which a real client is, as far as memberships and keys go. It prints the keys that it used and got, which the
// client compares with its own.
func TestRealMediaKeys(t *testing.T) {
	w := realserver.Read(t)
	hs := w.Connect(t, w.Registrations.Narrow)
	agent, err := hs.As(hs.Sender())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	room := w.Rooms[0]
	var office Office
	d, born := realDevice(t, agent, &office)
	run(t, ctx, d.Run)
	select {
	case <-born:
	case <-ctx.Done():
		t.Fatal("no device within a minute")
	}
	if err := agent.Join(ctx, room); err != nil {
		t.Fatal(err)
	}

	theirs := make(chan mediakeys.Theirs, 16)
	me := member.DeviceIdentity(string(d.User()), string(d.ID()))
	c, err := office.Engage(Options{
		Device: d, Room: room, Member: me,
		Own:    func(k mediakeys.Own) { t.Logf("key %s %d %x", me, k.Index, k.Secret) },
		Theirs: func(k mediakeys.Theirs) { theirs <- k },
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, ctx, c.Run)
	kind, key := event.Type{Type: member.TypeState, Class: event.StateEventType}, "_"+string(d.User())+"_"+string(d.ID())+"_m.call"
	focus := map[string]string{"type": "livekit", "livekit_service_url": "https://rtc.example.org/livekit/jwt", "livekit_alias": string(room)}
	if _, err := agent.SendState(ctx, room, kind, key, map[string]any{
		"application": "m.call", "call_id": "", "scope": "m.room", "device_id": d.ID(), "expires": 14_400_000, "membershipID": me,
		"focus_active": map[string]string{"type": "livekit", "focus_selection": "multi_sfu"}, "foci_preferred": []any{focus},
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := agent.SendState(context.WithoutCancel(ctx), room, kind, key, struct{}{}); err != nil {
			t.Error(err)
		}
	})

	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		c.Members(inCall(ctx, t, agent, room))
		select {
		case k := <-theirs:
			t.Logf("key %s %d %x", k.Identity, k.Index, k.Secret)
			return
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatal("nobody sent a key within a minute")
		}
	}
}

// realDevice makes a device of the bot with new files.
func realDevice(t *testing.T, agent homeserver.Agent, office *Office) (*device.Device, <-chan device.Birth) {
	t.Helper()
	dir := t.TempDir()
	raw, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "data.db")+"?_pragma=busy_timeout(5000)&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	raw.SetMaxOpenConns(1)
	db, err := dbutil.NewWithDB(raw, "sqlite3")
	if err != nil {
		t.Fatal(err)
	}
	key, err := device.LoadKey(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	born := make(chan device.Birth, 1)
	d, err := device.New(t.Context(), device.Options{
		Agent: agent, Vault: device.Vault{Database: db, Key: key, Recovery: device.NewRecovery(filepath.Join(dir, "recovery"))},
		Prefix: "CALLSERVER", Name: "test", Letter: office.Deliver,
		Born: func(_ context.Context, b device.Birth) {
			if !b.Signed {
				t.Error("the device is not signed")
			}
			born <- b
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return d, born
}

// run starts a loop that ends before the files are removed.
func run(t *testing.T, ctx context.Context, loop func(context.Context) error) { //nolint:revive // t first, as in all helpers
	t.Helper()
	ctx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- loop(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// inCall lists who is in the call.
func inCall(ctx context.Context, t *testing.T, agent homeserver.Agent, room id.RoomID) (all []mediakeys.Member) {
	t.Helper()
	state, err := agent.AllState(ctx, room)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range state {
		m, err := member.Parse(member.Event{
			Type: e.Type.Type, StateKey: e.StateKey, Sender: string(e.Sender), ID: string(e.ID), Content: e.Content.VeryRaw, Sent: time.UnixMilli(e.Timestamp),
		})
		if err == nil && !m.Expired(time.Now()) {
			all = append(all, mediakeys.Member{Peer: mediakeys.Peer{User: m.User, Device: m.Device}, Identity: m.Identity(), Created: m.Created})
		}
	}
	return all
}
