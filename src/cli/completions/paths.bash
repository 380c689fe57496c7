
_haul_with_paths() {
    local found path
    _haul "$@"
    found=$(haul complete-path -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null </dev/null)
    [[ -n $found ]] || return 0
    COMPREPLY=()
    while IFS= read -r path; do
        COMPREPLY+=("$path")
    done <<<"$found"
    # Readline quotes file names, and puts no space behind a directory.
    compopt -o filenames 2>/dev/null
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == */ ]]; then
        compopt -o nospace 2>/dev/null
    fi
    return 0
}

complete -F _haul_with_paths -o bashdefault -o default haul
