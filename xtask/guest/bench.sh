# Runs in a guest that counts instructions (one is one nanosecond). Prints `measure WHAT VALUE` lines.
# TIERS is set by a line before this one.
set -u
echo 1 > /proc/sys/kernel/bpf_stats_enabled
now() { /usr/bin/date +%s%N; }

# Starts the stream in the background and waits until all its messages are through; it stays until fd 3 is closed.
stream_start() {
    rm -f /tmp/input /tmp/done
    mkfifo /tmp/input
    traffic stream "$@" < /tmp/input > /tmp/done &
    stream=$!
    exec 3> /tmp/input
    tries=0
    until grep -q done /tmp/done || [ $tries -gt 600 ]; do tries=$((tries + 1)); sleep 0.2; done
}
stream_stop() { exec 3>&-; wait "$stream"; }

# Instructions per run of every program that ran at least 10,000 times.
per_run() {
    bpftool prog show | sed -n 's/.* name \([a-z_0-9]*\) .*run_time_ns \([0-9]*\) run_cnt \([0-9]*\).*/\1 \2 \3/p' |
        while read -r name time count; do
            [ "$count" -ge 10000 ] && echo "measure $1/$name $((time / count))"
        done
}
resident() { echo "measure $1 $(sed -n 's/^VmRSS:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$2/status")"; }
ready() { tries=0; until grep -q ready "$1" || [ $tries -gt 600 ]; do tries=$((tries + 1)); sleep 0.1; done; }

for tier in $TIERS; do
    : > /tmp/said
    overwatch -v top --attach "$tier" -o json 1 > /tmp/rows 2> /tmp/said & pid=$!
    ready /tmp/said
    stream_start --messages 20000; stream_stop
    per_run "$tier"
    stream_start --connections 1000; sleep 2
    resident "$tier/resident_kib" $pid
    stream_stop
    kill -INT $pid; wait $pid
    before=$(now); overwatch top --attach "$tier" -o json 1 1 > /dev/null; after=$(now)
    echo "measure $tier/start_and_stop_us $(((after - before) / 1000 - 1000000))"
done

tcptop -C 1 > /dev/null & pid=$!
sleep 5
stream_start --messages 20000; stream_stop
per_run tcptop
stream_start --connections 1000; sleep 2
resident tcptop/resident_kib $pid
stream_stop
kill -INT $pid; wait $pid
before=$(now); tcptop -C 1 1 > /dev/null; after=$(now)
echo "measure tcptop/start_and_stop_us $(((after - before) / 1000 - 1000000))"

# What a system call costs that has nothing to do with sockets, 200,000 times, with and without a tier attached.
calls() {
    /usr/bin/dd if=/dev/zero of=/dev/null bs=1 count=20000 2> /dev/null
    before=$(now); /usr/bin/dd if=/dev/zero of=/dev/null bs=1 count=100000 2> /dev/null; after=$(now)
    echo "measure $1/other_system_call $(((after - before) / 200000))"
}
calls none
for tier in $TIERS; do
    : > /tmp/said
    overwatch -v top --attach "$tier" -o json 1000 > /tmp/rows 2> /tmp/said & pid=$!
    ready /tmp/said
    calls "$tier"
    kill -INT $pid; wait $pid
done
exit 0
