# Sourced by the scripts beside it, before anything is installed.
#
#   help_or_continue "$@"    where --help or -h stands before any --: prints the comment at the script's head, and exits 0

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
