# Bit-exact over RDMA, on two rails and on one; the proof is in the counters of rxe and of TCP.

two_rails() {
  local size first second
  reader rdma 'require_rdma = on' || return
  count_packets
  first=${rail_packets[0]} second=${rail_packets[1]}
  for size in 4096 65536 1048576 16777216 268435456; do get_fresh $size rdma || return; done
  count_packets
  first=$((rail_packets[0] - first)) second=$((rail_packets[1] - second))
  figure "rxe0 $first and rxe1 $second packets"
  check "both rails carried bytes" [ $first -gt 10000 ] && check "both rails carried bytes" [ $second -gt 10000 ] \
    && settled
}
one_rail() {
  local size second
  reader rdma 'require_rdma = on' -- 'devices = rxe0' || return
  count_packets
  second=${rail_packets[1]}
  for size in 4096 1048576 16777216 268435456; do get_fresh $size rdma || return; done
  count_packets
  check "nothing on the other rail" [ $((rail_packets[1] - second)) -lt 10 ] && settled
}
auto_takes_rdma() {
  reader rdma && get_fresh 2097152 rdma && settled
}
tcp_when_told() {
  reader tcp 'transport = tcp' && get_fresh 2097152 tcp && settled
}
# Where the home has no rail, auto is TCP from the start; when rails appear there, RDMA, with no restart of anybody.
auto_comes_back() {
  stop_broker
  check "the home's rails go" on_home 'delete_rail 0 && delete_rail 1' || { broken=1; return 1; }
  reader tcp && get_fresh 2097152 tcp && check "the log says why" grep -q 'is over tcp; rdma: ' $dir/log || return
  on_home 'rail_up 0 && rail_up 1' || return
  local since=$SECONDS
  check "the peer is reached over rdma by itself" await 120 peer_is_over rdma || return
  figure "rdma $((SECONDS - since)) s after the rails came"
  get_fresh 2097152 rdma && settled
}
