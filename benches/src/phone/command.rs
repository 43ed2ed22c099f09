//! What a person can type.

pub const HELP: &str = "\
send NAME TEXT         send a message to a user or a group
group NAME USER...     make a group with you and these users
cut                    cut the connection; the phone comes back by itself
back                   come back at once
quit                   wait for what is under way, then end";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Send { to: String, text: String },
    Group { name: String, members: Vec<String> },
    Cut,
    Back,
    Help,
    Quit,
}

impl Command {
    /// `Ok(None)` for an empty line; an error is a sentence.
    pub fn parse(line: &str) -> Result<Option<Self>, String> {
        let line = line.trim();
        let (verb, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let command = match verb {
            "" => return Ok(None),
            "send" => match rest.split_once(char::is_whitespace) {
                Some((to, text)) if !text.trim().is_empty() => {
                    Command::Send { to: to.to_owned(), text: text.trim().to_owned() }
                }
                _ => return Err("-- say: send NAME TEXT".to_owned()),
            },
            "group" => {
                let mut words = rest.split_whitespace().map(str::to_owned);
                match (words.next(), words.collect::<Vec<_>>()) {
                    (Some(name), members) if !members.is_empty() => Command::Group { name, members },
                    _ => return Err("-- say: group NAME USER...".to_owned()),
                }
            }
            "cut" => Command::Cut,
            "back" => Command::Back,
            "help" => Command::Help,
            "quit" | "exit" => Command::Quit,
            other => return Err(format!("-- there is no `{other}`; `help` tells what there is")),
        };
        Ok(Some(command))
    }

    /// Names whose ids must be known.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Command::Send { to, .. } => vec![to],
            Command::Group { members, .. } => members.iter().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let send = |to: &str, text: &str| Command::Send { to: to.into(), text: text.into() };
        assert_eq!(Command::parse("send bob hello there"), Ok(Some(send("bob", "hello there"))));
        assert_eq!(Command::parse("  send bob   hi  "), Ok(Some(send("bob", "hi"))));
        let group = Command::Group { name: "trip".into(), members: vec!["bob".into(), "carol".into()] };
        assert_eq!(Command::parse("group trip bob carol"), Ok(Some(group.clone())));
        assert_eq!(group.names(), ["bob", "carol"]);
        assert_eq!(Command::parse("   "), Ok(None));
        assert_eq!(Command::parse("quit"), Ok(Some(Command::Quit)));
    }

    #[test]
    fn what_is_not_understood_is_told() {
        for line in ["send", "send bob", "group", "group trip", "sned bob hi"] {
            assert!(Command::parse(line).is_err(), "{line}");
        }
    }
}
