package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"callserver/bench"
	"callserver/internal/config"
)

// benchGarbage is how much of it may gather in the generator beside what is in use, in percent. On its one core a collection takes a tenth of a second when
// hundreds are in, and who joins meanwhile would be counted as waiting for the server.
const benchGarbage = 400

type benchCmd struct {
	URL         string        `name:"url" default:"ws://127.0.0.1:7880" help:"Server to load."`
	APIKey      string        `name:"api-key" default:"${devKey}" help:"API key of the server."`
	APISecret   string        `name:"api-secret" default:"${devSecret}" env:"CALLSERVER_BENCH_SECRET" help:"Its secret."`
	PID         int           `name:"pid" placeholder:"N" help:"Process of the server on this machine: measures its CPU, memory and context switches."`
	Rooms       int           `short:"n" default:"1" help:"Rooms."`
	Publishers  int           `short:"p" default:"2" help:"Participants of each room who publish, and receive each other."`
	Subscribers int           `short:"s" default:"0" help:"Participants of each room who only receive."`
	Audio       bool          `default:"true" negatable:"" help:"Publish audio."`
	Video       bool          `default:"true" negatable:"" help:"Publish video, three layers of it."`
	Room        string        `placeholder:"NAME" help:"Rooms are called NAME-0, NAME-1 and so on; without it no two runs meet."`
	JoinRate    float64       `default:"20" help:"Participants that join each second."`
	Duration    time.Duration `short:"d" default:"10s" help:"How long to measure."`
	Warmup      time.Duration `default:"2s" help:"How long to wait before, once everybody has joined."`
	JSON        bool          `name:"json" help:"Print the report as JSON."`
	Quiet       bool          `short:"q" help:"No progress lines."`
	Own         bool          `name:"i-own-this-server" help:"Allow a server that is not on this machine."`
}

// benchVars are the defaults of benchCmd that live elsewhere.
var benchVars = map[string]string{"devKey": config.DevelopmentKey, "devSecret": config.DevelopmentSecret}

// Run makes the load and prints what was measured. A void run is a failure.
func (b benchCmd) Run(cmd *command) error {
	o := bench.Options{
		URL: b.URL, Key: b.APIKey, Secret: b.APISecret, Force: b.Own, PID: b.PID,
		Load:     bench.Load{Rooms: b.Rooms, Publishers: b.Publishers, Subscribers: b.Subscribers, Audio: b.Audio, Video: b.Video},
		JoinRate: b.JoinRate, Warmup: b.Warmup, Duration: b.Duration, Progress: cmd.stderr,
	}
	if b.Quiet {
		o.Progress = nil
	}
	if o.Load.Prefix = b.Room; o.Load.Prefix == "" {
		o.Load.Prefix = fmt.Sprintf("bench-%d-%d", os.Getpid(), time.Now().UnixMilli())
	}
	defer letGather(benchGarbage)()
	report, err := bench.Run(cmd.ctx, o)
	if err != nil {
		return err
	}
	if b.JSON {
		err = report.WriteJSON(cmd.stdout)
	} else {
		err = report.WriteTable(cmd.stdout)
	}
	if err == nil && report.Void != "" {
		err = errors.New("bench: void: " + report.Void)
	}
	return err
}
