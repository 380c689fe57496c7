
# Sets the array `words` to the words of the line up to the cursor, without the first one. Readline also
# ends words at colons, which are a part of paths.
_haul_words() {
    local rest=${COMP_LINE:0:COMP_POINT} i word
    words=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $i -eq 0 || $rest == [[:space:]]* || ${#words[@]} -eq 0 ]]; then
            rest=${rest#"${rest%%[![:space:]]*}"}
            words+=("$word")
        else
            words[${#words[@]} - 1]+=$word
        fi
        rest=${rest#"$word"}
    done
    words=("${words[@]:1}")
}

_haul_with_paths() {
    local found path words last kept=
    _haul "$@"
    _haul_words
    found=$(haul complete-path -- "${words[@]}" 2>/dev/null </dev/null)
    [[ -n $found ]] || return 0
    last=${words[${#words[@]} - 1]}
    # Readline replaces only what is behind the last colon.
    if [[ $last == *:* && $COMP_WORDBREAKS == *:* ]]; then
        kept=${last%"${last##*:}"}
    fi
    COMPREPLY=()
    while IFS= read -r path; do
        COMPREPLY+=("${path#"$kept"}")
    done <<<"$found"
    # Readline quotes file names, and puts no space behind a directory.
    compopt -o filenames 2>/dev/null
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == */ ]]; then
        compopt -o nospace 2>/dev/null
    fi
    return 0
}

complete -F _haul_with_paths -o bashdefault -o default haul
