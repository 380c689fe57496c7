
function __haul_paths
    set -l words (commandline -opc)
    set -e words[1]
    haul complete-path -- $words (commandline -ct) 2>/dev/null </dev/null
end

# Without local files where only paths on the server make sense.
complete -c haul -n "__fish_seen_subcommand_from ls tree find du cat stat mkdir rm mv cp hash watch" -f
complete -c haul -n "__fish_seen_subcommand_from ls tree find du cat stat mkdir rm mv cp hash watch get put sync send accept" -a "(__haul_paths)"
