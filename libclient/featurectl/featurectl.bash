# bash completion for featurectl(1). SPDX-License-Identifier: Apache-2.0
# The candidates come from featurectl itself; where it has none, bash offers file names.
_featurectl() {
  local IFS=$'\n'
  COMPREPLY=($("${COMP_WORDS[0]}" __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2> /dev/null))
}
complete -o default -F _featurectl featurectl
