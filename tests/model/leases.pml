/*
 * Leases, fencing and order of the outbox (service/ledger/outbox.py), for spin to search all interleavings.
 *
 * Two dispatchers deliver two events of one order to one endpoint. A dispatcher may die between any two steps, and a
 * lease may end while its holder is still at work. An operator may have one event sent again. Each transaction is
 * atomic, as in the database.
 *
 * To see that the properties depend on the guards, leave one out: NO_FENCE settles whatever the fencing token, NO_ORDER
 * leases an event behind an open earlier one.
 */

#define MAX_ATTEMPTS 2
#ifndef MAX_FAULTS
#define MAX_FAULTS 2 /* crashes, and as many leases that end early */
#endif
#define NOBODY 255

mtype = { open, delivered, parked };

/* The rows. `leased` stands for a due time in the future. */
mtype state[2] = open;
byte fence[2];
byte attempts[2];
bool leased[2];

/* What only the model knows: who was given the last lease, and whether that process is still at work on it. */
byte holder[2] = NOBODY;
bool at_work[2];
/* Whether the endpoint ever got the event, and whether it did since it was last made due anew. */
bool arrived[2];
bool arrived_anew[2];
/* Whether the event was ever given up or sent again: from then on, the later event may come before it. */
bool out_of_order[2];

byte crashes;
byte early_ends;

#ifdef NO_FENCE
#define IS_HELD(e) (state[e] == open)
#else
#define IS_HELD(e) (state[e] == open && fence[e] == mine)
#endif

#ifdef NO_ORDER
#define IS_FREE(e) (state[e] == open && !leased[e])
#else
#define IS_FREE(e) (state[e] == open && !leased[e] && (e == 0 || state[0] != open))
#endif

inline lease(e) {
	attempts[e]++;
	fence[e]++;
	leased[e] = true;
	holder[e] = _pid;
	at_work[e] = true;
	event = e;
	mine = fence[e]
}

inline arrive() {
	/* First arrivals are in sequence, however late a process sends. */
	assert(event == 0 || arrived[1] || arrived[0] || out_of_order[0]);
	/* While the lease holds, no event comes after a later one. */
	assert(event == 1 || !arrived[1] || out_of_order[0] || !leased[0] || fence[0] != mine);
	arrived[event] = true;
	arrived_anew[event] = true
}

inline forget() {
	if
	:: holder[event] == _pid -> at_work[event] = false
	:: else -> skip
	fi;
	event = 0;
	mine = 0;
	accepted = false
}

inline may_die() {
	if
	:: skip
	:: atomic { crashes < MAX_FAULTS -> crashes++; forget(); goto end_idle }
	fi
}

active [2] proctype dispatcher() {
	byte event;
	byte mine;
	bool accepted;

end_idle:
	if
	:: atomic { IS_FREE(0) -> lease(0) }
	:: atomic { IS_FREE(1) -> lease(1) }
	fi;
	may_die();
	if
	:: atomic { arrive(); accepted = true }
	:: atomic { arrive(); accepted = false } /* the answer was lost */
	:: accepted = false
	fi;
	may_die();
	atomic {
		if
		:: IS_HELD(event) ->
			assert(holder[event] == _pid);
			if
			:: accepted -> assert(arrived_anew[event]); state[event] = delivered
			:: !accepted && attempts[event] >= MAX_ATTEMPTS -> state[event] = parked; out_of_order[event] = true
			:: !accepted && attempts[event] < MAX_ATTEMPTS -> leased[event] = false
			fi
		:: else -> skip /* the lease was lost */
		fi;
		forget()
	}
	goto end_idle
}

inline end_lease(e) {
	leased[e] && state[e] == open && (!at_work[e] || early_ends < MAX_FAULTS) ->
	early_ends = early_ends + at_work[e];
	leased[e] = false
}

active proctype clock() {
end_wait:
	do
	:: atomic { end_lease(0) }
	:: atomic { end_lease(1) }
	od
}

inline replay(e) {
	state[e] = open;
	attempts[e] = 0;
	fence[e]++;
	leased[e] = false;
	holder[e] = NOBODY;
	arrived_anew[e] = false;
	out_of_order[e] = true
}

active proctype operator() {
	if
	:: skip
	:: atomic { replay(0) }
	:: atomic { replay(1) }
	fi
}

/* Whatever happens: in the end each event is delivered, or given up where people see it. */
ltl settled { <> [] (state[0] != open && state[1] != open) }
