package sfu

// Lock closes a room to newcomers, or opens it again. Who is in it when it is closed may come back, with every device,
// unless they are removed meanwhile; agents, egress and recorders come and go as before. The lock ends with the room. It
// fails with ErrNotFound.
func (r *Rooms) Lock(id RoomID, on bool) error {
	rm := r.find(id)
	if rm == nil {
		return ErrNotFound
	}
	rm.mu.Lock()
	defer rm.mu.Unlock()
	switch {
	case rm.closed:
		return ErrNotFound
	case !on:
		rm.insiders = nil
	case rm.insiders == nil:
		rm.insiders = make(map[string]struct{}, len(rm.members))
		for _, p := range rm.members {
			rm.insiders[p.member.person()] = struct{}{}
		}
	}
	return nil
}

// shutLocked reports whether the room is locked and the member is none of those who may come back.
func (rm *room) shutLocked(m Member) bool {
	if rm.insiders == nil || !m.standard() {
		return false
	}
	_, inside := rm.insiders[m.person()]
	return !inside
}

// expelLocked keeps who was removed from a locked room from coming back.
func (rm *room) expelLocked(p *Participant, why Reason) {
	if why == ParticipantRemoved {
		delete(rm.insiders, p.member.person())
	}
}
