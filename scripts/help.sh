# Sourced by the scripts in this folder before anything is installed.
#
#   help_or_continue "$@"    if --help or -h precedes any --, prints the comment at the script's head and exits with 0

help_or_continue() {
  local argument
  for argument in "$@"; do
    case "$argument" in
      --) return ;;
      --help | -h)
        sed -n '2,${/^#/!q; s/^# \{0,1\}//; p}' "scripts/${0##*/}"
        exit 0
        ;;
    esac
  done
}
