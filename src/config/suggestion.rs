//! Names that a misspelt name may stand for.

/// The most suggestions of an error message.
const MAX_SUGGESTIONS: usize = 3;

/// The names among `known` whose spelling is close to that of `name`, the closest first.
pub(super) fn near_names<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let max_distance = (name.len() / 5).max(1);
    let mut close_names: Vec<_> = known
        .into_iter()
        .map(|known| (strsim::osa_distance(name, known), known))
        .filter(|(distance, _)| *distance <= max_distance)
        .collect();
    close_names.sort_unstable();
    close_names.truncate(MAX_SUGGESTIONS);
    close_names.into_iter().map(|(_, known)| known).collect()
}

/// "; did you mean a, b or c?", or `otherwise` without names.
pub(super) fn did_you_mean(names: &[&str], otherwise: &str) -> String {
    if names.is_empty() {
        return format!("; {otherwise}");
    }
    format!("; did you mean {}?", alternatives(names))
}

/// "a, b or c".
pub(super) fn alternatives(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [name] => (*name).to_owned(),
        [names @ .., last] => format!("{} or {last}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_close_names_are_suggested_and_at_most_three() {
        let known = ["limits.sessions", "limits.requests", "log.level"];
        assert_eq!(near_names("limits.sesions", known), ["limits.sessions"]);
        assert!(near_names("limits.colour", known).is_empty());
        let many = ["abcde1", "abcde2", "abcde3", "abcde4"];
        assert_eq!(near_names("abcde", many), ["abcde1", "abcde2", "abcde3"]);
    }

    #[test]
    fn suggestions_read_as_a_sentence() {
        assert_eq!(did_you_mean(&[], "see the list"), "; see the list");
        assert_eq!(did_you_mean(&["a"], ""), "; did you mean a?");
        assert_eq!(
            did_you_mean(&["a", "b", "c"], ""),
            "; did you mean a, b or c?"
        );
    }
}
