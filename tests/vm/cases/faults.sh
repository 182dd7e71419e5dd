# Faults in the middle of a read. Each ends with a status, leaves nothing, and the next get goes over RDMA.

# What is outstanding must not queue for seconds on the slow rails, where messages pass, too.
slow_reader() { reader rdma 'require_rdma = on' -- 'reads_in_flight = 4'; }
# A broker that has just started has dialled rail 0: messages go there, rail 1 carries bytes alone.
fresh_reader() {
  stop_broker
  slow_reader
}

home_killed() {
  slow_reader && begin_get || return
  on_home 'stop_broker KILL'
  strikes_mid_read && get_ends && check "the get fails" [ $ended != 0 ] && check "the home starts" on_home start_broker && works_again
}
reader_killed() {
  slow_reader && begin_get || return
  stop_broker KILL
  strikes_mid_read && get_ends && check "the get fails" [ $ended != 0 ] && check "the home ends its lease" on_home 'await 60 is_idle' \
    && slow_reader && works_again
}
links_down_3_s() {
  rail_down 0 && rail_down 1 && strikes_mid_read || return
  sleep 3
  rail_up 0 && rail_up 1
}
links_down_required() {
  slow_reader && begin_get || return
  links_down_3_s && get_ends && works_again
}
links_down_auto() {
  reader rdma -- 'reads_in_flight = 4' && begin_get || return
  links_down_3_s && get_ends && works_again
}
one_rail_down() {
  fresh_reader && begin_get || return
  rail_down 1
  strikes_mid_read && get_ends && check "the get goes on over the other rail" [ $ended = 0 ] || return
  rail_up 1
  works_again
}
control_rail_down() {
  fresh_reader && begin_get || return
  rail_down 0
  strikes_mid_read && get_ends || return
  rail_up 0
  works_again
}
device_removed() { # RAIL
  fresh_reader && begin_get || return
  check "rdma link del returns within 30 s" delete_rail "$1" > $dir/deleted || { broken=1; return 1; }
  figure "$(cat $dir/deleted)"
  strikes_mid_read && get_ends || return
  [ "$1" = 0 ] || check "the get goes on over the other rail" [ $ended = 0 ] || return
  rail_up "$1"
  works_again && check "both rails are used again" await 60 uses_both_rails
}
uses_both_rails() { # so featurectl nodes says
  local line
  line=$(peer_line) && [[ $line == *'"name":"rxe0/1"'*'"up":true'*'"name":"rxe1/1"'*'"up":true'* || \
    $line == *'"name":"rxe1/1"'*'"up":true'*'"name":"rxe0/1"'*'"up":true'* ]]
}
bulk_device_removed() { device_removed 1; }
control_device_removed() { device_removed 0; }
home_device_removed() {
  fresh_reader && begin_get || return
  check "rdma link del returns within 30 s" on_home 'delete_rail 1' > $dir/deleted || { broken=1; return 1; }
  figure "$(cat $dir/deleted)"
  strikes_mid_read && get_ends || return
  on_home 'rail_up 1'
  works_again && check "both rails are used again" await 60 uses_both_rails
}
# A QP of either broker is put into the error state under it (tests/vm/qp_error.c).
break_qps() { # HOW MANY: of the broker on this machine, the youngest first
  echo "$1" > $dir/break
}
reader_qp_in_error() {
  stop_broker
  write_config 'require_rdma = on' -- 'reads_in_flight = 4'
  rm -f $dir/break && mkfifo $dir/break
  check "the broker starts" start_broker env QP_ERROR_FIFO=$dir/break LD_PRELOAD="${ASAN:+$ASAN:}$PWD/$BUILD/tests/qp_error.so" || return
  cp $dir/conf $dir/conf.running
  check "the peer is reached over rdma" await 120 peer_is_over rdma && begin_get || return
  break_qps 1
  strikes_mid_read && get_ends && check "the get goes on over the other rail" [ $ended = 0 ] && works_again && begin_get || return
  break_qps 8
  get_ends && works_again
}
home_qp_in_error() {
  on_home "stop_broker; rm -f $dir/break; mkfifo $dir/break
    start_broker env QP_ERROR_FIFO=$dir/break LD_PRELOAD=${ASAN:+$ASAN:}$PWD/$BUILD/tests/qp_error.so" || return
  slow_reader && begin_get || return
  on_home "echo 8 > $dir/break"
  get_ends && works_again || return
  on_home 'stop_broker; start_broker'
}
# Everything that was put is taken back: then not one byte is used on either node.
nothing_leaked() {
  reader rdma && on_home "ctl abort run/big-0 run/big-1" && settled || return
  check "the home is empty" on_home 'await 60 is_empty' && check "the reader is empty" await 60 is_empty
  figure "$(on_home 'field resident_bytes "$(ctl status --json)"') and $(field resident_bytes "$(ctl status --json)") bytes resident"
}
is_empty() { [ "$(field resident_bytes "$(ctl status --json)")" = 0 ]; }
# Last of all: the home's machine goes, without a word. Slower still: there is no second try.
home_off() {
  on_home 'slow_rails 12' || return
  slow_reader && begin_get || return
  home_is_off=1
  tell_home 'echo 0 > /results/status.1; sync; node_off'
  get_ends && check "the get fails" [ $ended != 0 ] && check "nothing is left on the reader" await 60 is_idle
}
