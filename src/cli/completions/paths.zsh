_haul() {
    local -a paths directories
    paths=("${(@f)$(haul complete-path -- "${(@)words[2,CURRENT]}" 2>/dev/null </dev/null)}")
    paths=("${(@)paths:#}")
    if (( $#paths == 0 )); then
        _haul_arguments "$@"
        return
    fi
    directories=("${(@M)paths:#*/}")
    paths=("${(@)paths:#*/}")
    (( $#directories )) && compadd -S '' -- "${directories[@]}"
    (( $#paths )) && compadd -- "${paths[@]}"
    return 0
}
