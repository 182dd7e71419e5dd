# What a machine may lack: the broker starts on TCP and says why, or refuses when RDMA is required.

says() { grep -F -m 1 "$1" $dir/log | sed -E 's/^.*(peers over TCP alone: |cannot be had: )//' | grep . > $dir/said; }
# Starts on TCP and works; refuses with require_rdma; both with these words.
runs_on_tcp() { # WORDS [PROGRAM THAT STARTS IT...]
  local words=$1
  shift
  [ ! -e $dir/pid ] || stop_broker
  rm -f $dir/conf.running
  write_config
  check "the broker starts" start_broker "$@" || return
  check "it says: $words" says "$words" || return
  figure "$(cat $dir/said)"
  check "doctor says so" doctor_says "${doctor:-$words}" || return
  check "the peer is reached over tcp" await 120 peer_is_over tcp && get_fresh 1048576 tcp || return
  stop_broker
  write_config 'require_rdma = on'
  check "with require_rdma it does not start" not timeout 30 "$@" $BUILD/featured --config $dir/conf > $dir/log 2>&1 || return
  check "and says: $words" says "$words" && check "that it is required" grep -q 'RDMA is required' $dir/log
}
doctor_says() { ctl doctor --json > $dir/doctor; grep -q "$1" $dir/doctor || { cat $dir/doctor; return 1; }; }
no_device() {
  rdma link del rxe0 && rdma link del rxe1 || return
  doctor='no RDMA device' runs_on_tcp 'no RDMA on this machine' || return
  rail_up 0 && rail_up 1
  reader rdma && works_again
}
no_usable_gid() {
  rdma link del rxe0
  ip addr flush dev eth1
  ip link set eth1 down
  doctor='rxe1: no active port with a routable GID' runs_on_tcp 'RDMA device rxe1 has no usable GID' || return
  rail_up 0 && rail_up 1
  reader rdma && works_again
}
memlock_8_mib() {
  doctor='limit is 8.0 MiB' runs_on_tcp 'the limit of locked memory is 8 MiB, the stores need 664 MiB' \
    setpriv --inh-caps=-ipc_lock --bounding-set=-ipc_lock prlimit --memlock=8388608 || return
  reader rdma && works_again
}
