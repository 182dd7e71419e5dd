# Brokers and programs that do not know the cluster secret.

wrong_secret() {
  stop_broker
  write_config 'require_rdma = on'
  echo "another secret than the others have" > $dir/secret
  start_broker
  check "the refusal is reported" await 60 refused || return
  figure "$(field last_failure "$(peer_line)")"
  check "no lease at the home" on_home is_idle || return
  stop_broker
  rm $dir/secret $dir/conf.running
  reader rdma 'require_rdma = on' && works_again
}
refused() { ! peer_is_over rdma && peer_line | grep -q secret; }

# A program with a QP of its own and the true keys, addresses and QP numbers of the home (tests/vm/stranger.c).
stranger() {
  local known
  reader rdma 'require_rdma = on' && begin_get && get_ends || return
  check "its own memory can be read that way" $BUILD/tests/stranger --own 10.77.0.2 || return
  known=$(on_home "known") || return
  check "there are keys and QPs to try" known_is_enough "$known" || return
  check "no byte for a stranger" $BUILD/tests/stranger 10.77.0.1 7400 $known > $dir/stranger.log || { cat $dir/stranger.log; return 1; }
  figure "$(tail -n 1 $dir/stranger.log)"
  works_again
}
known_is_enough() { [[ $1 == *0x*:* && $1 == *qp:* ]]; }
