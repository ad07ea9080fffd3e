package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"sync"
	"time"
)

// A run is one measurement from the first join to the last leave.
type run struct {
	options  Options
	url      *url.URL
	local    netip.Addr
	identity *identity
	clock    clock
	tracks   []*track
	loops    []*loop
	people   []*participant

	mu       sync.Mutex
	joined   int
	lost     int // joins that failed
	refused  int // of these by a server that is full
	failures []error
}

// maxFailures is how many failed joins are told in full.
const maxFailures = 5

// drain is how long packets may be under way after the measurement, before they count as lost.
const drain = 500 * time.Millisecond

// Run makes the load and measures it. It returns when everybody has left; cancelling ctx ends it early with an error.
// Joins that fail are part of the report, not an error, as long as somebody joined. Meanwhile GOMAXPROCS is twice what it was.
func Run(ctx context.Context, o Options) (*Report, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &run{options: o, clock: clock{time.Now()}}
	if r.url, r.local, err = o.target(); err != nil {
		return nil, err
	}
	if r.identity, err = newIdentity(); err != nil {
		return nil, fmt.Errorf("bench: certificate: %w", err)
	}
	if o.PID != 0 {
		if _, err := readProcess(o.PID); err != nil {
			return nil, fmt.Errorf("bench: server process %d: %w", o.PID, err)
		}
	}
	r.plan()
	cores := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(cores)
	runtime.GOMAXPROCS(2 * cores) // a loop keeps its turn while it sleeps
	for range cores {
		lp, err := newLoop(r.clock, r.tracks)
		if err != nil {
			return nil, fmt.Errorf("bench: %w", err)
		}
		r.loops = append(r.loops, lp)
	}
	return r.measure(ctx)
}

// plan lists tracks and participants.
func (r *run) plan() {
	l := r.options.Load
	for room := range l.Rooms {
		for number := range l.Publishers + l.Subscribers {
			p := &participant{run: r, room: room, number: number}
			for _, video := range []bool{false, true} {
				if number < l.Publishers && (video && l.Video || !video && l.Audio) {
					t := &track{id: uint32(len(r.tracks)), room: room, publisher: number, video: video}
					r.tracks = append(r.tracks, t)
					p.tracks = append(p.tracks, t)
				}
			}
			r.people = append(r.people, p)
		}
	}
}

// measure runs the loops and the participants around the measurement.
func (r *run) measure(ctx context.Context) (*Report, error) {
	media, stopMedia := context.WithCancel(context.WithoutCancel(ctx))
	defer stopMedia()
	var loops sync.WaitGroup
	for _, lp := range r.loops {
		loops.Go(func() { lp.run(media) })
	}
	stay, leave := context.WithCancel(ctx)
	defer leave()
	progress, stopProgress := context.WithCancel(stay)
	var people, lines sync.WaitGroup
	lines.Go(func() { r.progressLoop(progress) })

	report, err := r.watch(stay, &people)

	stopProgress()
	lines.Wait()
	leave()
	people.Wait()
	stopMedia()
	loops.Wait()
	if err != nil {
		return nil, err
	}
	r.finish(report)
	return report, nil
}

// watch lets everybody join, then takes the figures of the processes at both ends of the measurement.
func (r *run) watch(ctx context.Context, people *sync.WaitGroup) (*Report, error) {
	o := r.options
	if err := r.joinAll(ctx, people); err != nil {
		return nil, err
	}
	if err := sleep(ctx, o.Warmup); err != nil {
		return nil, err
	}
	w := window{from: r.clock.now() + 20*time.Millisecond}
	w.until = w.from + o.Duration
	for _, lp := range r.loops {
		lp.newWindow.Store(&w)
	}
	before, err := r.processes()
	if err == nil {
		err = sleep(ctx, w.until-r.clock.now())
	}
	if err != nil {
		return nil, err
	}
	after, err := r.processes()
	if err == nil {
		err = sleep(ctx, drain)
	}
	if err != nil {
		return nil, err
	}
	return newReport(o, len(r.loops), before, after), nil
}

// joinAll starts the participants at the wanted rate and returns when each has joined or failed.
func (r *run) joinAll(ctx context.Context, people *sync.WaitGroup) error {
	var joining sync.WaitGroup
	began := r.clock.now()
	for i, p := range r.people {
		due := began + time.Duration(float64(i)/r.options.JoinRate*float64(time.Second))
		if err := sleep(ctx, due-r.clock.now()); err != nil {
			return err
		}
		p.loop = r.loops[i%len(r.loops)]
		joining.Add(1)
		people.Go(func() {
			p.serve(ctx, func(err error) {
				defer joining.Done()
				if err == nil {
					r.mu.Lock()
					r.joined++
					r.mu.Unlock()
				}
			})
		})
	}
	joining.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.joined == 0 {
		return fmt.Errorf("bench: nobody could join: %w", errors.Join(r.failures...))
	}
	return ctx.Err()
}

func (r *run) failed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost++
	if no := (*refusal)(nil); errors.As(err, &no) && no.status == http.StatusServiceUnavailable {
		r.refused++
	}
	if len(r.failures) < maxFailures {
		r.failures = append(r.failures, err)
	}
}

// progressLoop says once a second how it goes.
func (r *run) progressLoop(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	var sent, received uint64
	cpu, _ := readProcess(os.Getpid())
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		var s, v uint64
		for _, lp := range r.loops {
			s += lp.sent.Load()
			v += lp.received.Load()
		}
		now, _ := readProcess(os.Getpid())
		r.mu.Lock()
		joined, failed := r.joined, r.lost
		r.mu.Unlock()
		_, _ = fmt.Fprintf(r.options.Progress, "%4.0fs  %d of %d joined, %d failed; packets/s sent %d, received %d; generator %.0f %% of a core\n",
			r.clock.now().Seconds(), joined, len(r.people), failed, s-sent, v-received, 100*(now.CPU-cpu.CPU).Seconds())
		sent, received, cpu = s, v, now
	}
}

// finish computes what needs the loops to have ended.
func (r *run) finish(report *Report) {
	report.Joins.Asked, report.Joins.Refused = len(r.people), r.refused
	for _, err := range r.failures {
		report.Joins.Errors = append(report.Joins.Errors, err.Error())
	}
	var joins, first, key, back histogram
	byRoom := map[int][]*track{}
	for _, t := range r.tracks {
		byRoom[t.room] = append(byRoom[t.room], t)
		report.addTrack(t)
	}
	for _, p := range r.people {
		report.addComeback(p, &back)
		if p.upAt == 0 {
			continue
		}
		joins.add(p.upAt - p.dialled)
		report.addLink(p.link)
		for _, t := range byRoom[p.room] {
			begun := t.layers[t.top()].begun
			if t.publisher == p.number || begun == 0 {
				continue
			}
			f := p.link.flows[t.id]
			if f == nil {
				f = &flow{track: t}
			}
			report.addFlow(f)
			since := max(p.upAt, begun) // the first picture cannot come before somebody waits for it and it is sent
			if f.firstAt > 0 {
				first.add(f.firstAt - since)
			}
			if f.keyAt > 0 {
				key.add(f.keyAt - since)
			}
		}
	}
	var latency, late histogram
	for _, lp := range r.loops {
		latency.merge(&lp.latency)
		late.merge(&lp.late)
		report.Generator.Unsent += lp.unsent
	}
	report.Joins.Times, report.FirstPacket, report.FirstKeyFrame = summarise(&joins), summarise(&first), summarise(&key)
	report.Latency, report.Generator.Lateness = summarise(&latency), summarise(&late)
	report.Comebacks.Times = summarise(&back)
	report.conclude()
}

// processes reads what the server's and our own process used so far.
func (r *run) processes() (p processes, err error) {
	p.at = r.clock.now()
	if p.own, err = readProcess(os.Getpid()); err != nil {
		return p, err
	}
	p.overflows = receiveOverflows()
	if r.options.PID != 0 {
		if p.server, err = readProcess(r.options.PID); err != nil {
			return p, fmt.Errorf("bench: the server's process %d is gone: %w", r.options.PID, err)
		}
	}
	return p, nil
}

// sleep waits for d or the end of ctx, whose error it returns.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
