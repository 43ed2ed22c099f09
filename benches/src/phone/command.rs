//! What a person can type.

/// A line of the help: the verb, what follows it, and what it does.
pub struct Verb {
    pub name: &'static str,
    pub rest: &'static str,
    pub does: &'static str,
}

const fn verb(name: &'static str, rest: &'static str, does: &'static str) -> Verb {
    Verb { name, rest, does }
}

/// NAME is a user or a group that this phone has met, USER a user's name or #ID, N a moment of `moments`.
pub const VERBS: &[Verb] = &[
    verb("send", "NAME TEXT", "send a message to a user or a group"),
    verb("image", "NAME URL [TEXT]", "send where a picture lies"),
    verb("recall", "NAME", "take your last message to NAME back, within two minutes"),
    verb("typing", "NAME", "tell that you are typing"),
    verb("unread", "", "list your conversations"),
    verb("log", "NAME", "show the end of a conversation"),
    verb("read", "NAME", "say that you have read it"),
    verb("ask", "USER [TEXT]", "ask to be a contact"),
    verb("accept", "USER", "say yes to one who asks"),
    verb("remove", "USER", "end a contact, take a question back, or say no"),
    verb("remark", "USER [TEXT]", "what you call a user"),
    verb("block", "USER", "take nothing from a user"),
    verb("unblock", "USER", "take it again"),
    verb("star", "USER", "mark a user with a star"),
    verb("unstar", "USER", "take the star away"),
    verb("contacts", "", "list contacts, and who asks"),
    verb("group", "NAME USER...", "make a group with you and these users"),
    verb("groups", "", "list your groups"),
    verb("invite", "GROUP USER...", "bring users into a group"),
    verb("kick", "GROUP USER...", "remove users from a group that is yours"),
    verb("leave", "GROUP", "leave a group"),
    verb("rename", "GROUP NAME", "give a group another name"),
    verb("owner", "GROUP USER", "hand a group over"),
    verb("post", "[-USER...] TEXT", "show contacts a moment, but for those with a -"),
    verb("moments", "", "list moments, yours and your contacts'"),
    verb("look", "N", "read a moment and what was said to it"),
    verb("comment", "N TEXT", "say something to a moment"),
    verb("like", "N", "like a moment"),
    verb("unsay", "N", "take your last word to a moment away"),
    verb("withdraw", "N", "take a moment of yours away"),
    verb("profile", "[NICK [TEXT]]", "show or set your profile"),
    verb("who", "USER", "show a user's profile"),
    verb("set", "[KEY [VALUE]]", "show settings, or set one"),
    verb("devices", "", "list your devices"),
    verb("logout", "N", "log a device of that list out"),
    verb("cut", "", "cut the connection; the phone comes back by itself"),
    verb("back", "", "come back at once"),
    verb("help", "", "this"),
    verb("quit", "", "wait for what is under way, then end"),
];

pub fn help() -> String {
    let lines = VERBS.iter().map(|verb| {
        let call = format!("{} {}", verb.name, verb.rest);
        format!("{:22} {}", call.trim_end(), verb.does)
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Send { to: String, text: String, image: Option<String> },
    Recall { to: String },
    Typing { to: String },
    Unread,
    Log { with: String },
    Read { with: String },
    Ask { user: String, hello: String },
    Accept { user: String },
    Remove { user: String },
    Remark { user: String, remark: String },
    Block { user: String, on: bool },
    Star { user: String, on: bool },
    Contacts,
    Group { name: String, members: Vec<String> },
    Groups,
    Invite { group: String, users: Vec<String> },
    Kick { group: String, users: Vec<String> },
    Leave { group: String },
    Rename { group: String, name: String },
    Owner { group: String, user: String },
    Post { hidden_from: Vec<String>, text: String },
    Moments,
    Look { moment: usize },
    Comment { moment: usize, text: String },
    Like { moment: usize },
    Unsay { moment: usize },
    Withdraw { moment: usize },
    Profile,
    SetProfile { nick: String, about: String },
    Who { user: String },
    Settings,
    Set { key: String, value: String },
    Devices,
    LogOut { device: usize },
    Cut,
    Back,
    Help,
    Quit,
}

impl Command {
    /// `Ok(None)` for an empty line; an error is a sentence.
    pub fn parse(line: &str) -> Result<Option<Self>, String> {
        let line = line.trim();
        let (name, rest) = cut(line);
        if name.is_empty() {
            return Ok(None);
        }
        let name = if name == "exit" { "quit" } else { name };
        let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else {
            return Err(format!("-- there is no `{name}`; `help` tells what there is"));
        };
        match Self::of(name, rest) {
            Some(command) => Ok(Some(command)),
            None => Err(format!("-- say: {}", format!("{} {}", verb.name, verb.rest).trim_end())),
        }
    }

    /// None: what follows the verb is not what it takes.
    fn of(name: &str, rest: &str) -> Option<Self> {
        let (first, behind) = cut(rest);
        let word = || (!first.is_empty() && behind.is_empty()).then(|| first.to_owned());
        let words = || {
            let users: Vec<String> = behind.split_whitespace().map(str::to_owned).collect();
            (!users.is_empty()).then(|| (first.to_owned(), users))
        };
        let both = || (!behind.is_empty()).then(|| (first.to_owned(), behind.to_owned()));
        let number = || first.parse::<usize>().ok();
        let alone = |command| rest.is_empty().then_some(command);
        let user = first.to_owned();
        Some(match name {
            "send" => {
                let (to, text) = both()?;
                Command::Send { to, text, image: None }
            }
            "image" => {
                let (to, rest) = both()?;
                let (url, text) = cut(&rest);
                Command::Send { to, text: text.to_owned(), image: Some(url.to_owned()) }
            }
            "recall" => Command::Recall { to: word()? },
            "typing" => Command::Typing { to: word()? },
            "unread" => alone(Command::Unread)?,
            "log" => Command::Log { with: word()? },
            "read" => Command::Read { with: word()? },
            "ask" if !user.is_empty() => Command::Ask { user, hello: behind.to_owned() },
            "accept" => Command::Accept { user: word()? },
            "remove" => Command::Remove { user: word()? },
            "remark" if !user.is_empty() => Command::Remark { user, remark: behind.to_owned() },
            "block" | "unblock" => Command::Block { user: word()?, on: name == "block" },
            "star" | "unstar" => Command::Star { user: word()?, on: name == "star" },
            "contacts" => alone(Command::Contacts)?,
            "group" => {
                let (name, members) = words()?;
                Command::Group { name, members }
            }
            "groups" => alone(Command::Groups)?,
            "invite" | "kick" => {
                let (group, users) = words()?;
                if name == "invite" {
                    Command::Invite { group, users }
                } else {
                    Command::Kick { group, users }
                }
            }
            "leave" => Command::Leave { group: word()? },
            "rename" => {
                let (group, name) = both()?;
                Command::Rename { group, name }
            }
            "owner" => {
                let (group, user) = both().filter(|(_, user)| !user.contains(char::is_whitespace))?;
                Command::Owner { group, user }
            }
            "post" => post(rest)?,
            "moments" => alone(Command::Moments)?,
            "look" => Command::Look { moment: number().filter(|_| behind.is_empty())? },
            "comment" => Command::Comment { moment: number()?, text: both()?.1 },
            "like" => Command::Like { moment: number().filter(|_| behind.is_empty())? },
            "unsay" => Command::Unsay { moment: number().filter(|_| behind.is_empty())? },
            "withdraw" => Command::Withdraw { moment: number().filter(|_| behind.is_empty())? },
            "profile" if rest.is_empty() => Command::Profile,
            "profile" => Command::SetProfile { nick: user, about: behind.to_owned() },
            "who" => Command::Who { user: word()? },
            "set" if rest.is_empty() => Command::Settings,
            "set" => Command::Set { key: user, value: behind.to_owned() },
            "devices" => alone(Command::Devices)?,
            "logout" => Command::LogOut { device: number().filter(|_| behind.is_empty())? },
            "cut" => alone(Command::Cut)?,
            "back" => alone(Command::Back)?,
            "help" => Command::Help,
            "quit" => alone(Command::Quit)?,
            _ => return None,
        })
    }

    /// Names whose ids must be known.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Command::Send { to, .. } | Command::Recall { to } | Command::Typing { to } => vec![to],
            Command::Log { with } | Command::Read { with } => vec![with],
            Command::Ask { user, .. }
            | Command::Accept { user }
            | Command::Remove { user }
            | Command::Remark { user, .. }
            | Command::Block { user, .. }
            | Command::Star { user, .. }
            | Command::Who { user } => vec![user],
            Command::Group { members, .. } => members.iter().map(String::as_str).collect(),
            Command::Invite { group, users } | Command::Kick { group, users } => {
                std::iter::once(group).chain(users).map(String::as_str).collect()
            }
            Command::Leave { group } | Command::Rename { group, .. } => vec![group],
            Command::Owner { group, user } => vec![group, user],
            Command::Post { hidden_from, .. } => hidden_from.iter().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }
}

/// Leading words with a `-` are those who do not see it.
fn post(rest: &str) -> Option<Command> {
    let (mut hidden_from, mut rest) = (Vec::new(), rest);
    while let Some(user) = rest.strip_prefix('-') {
        let (user, behind) = cut(user);
        hidden_from.push(user.to_owned());
        rest = behind;
    }
    (!rest.is_empty()).then(|| Command::Post { hidden_from, text: rest.to_owned() })
}

fn cut(text: &str) -> (&str, &str) {
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (first, rest.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let send = |to: &str, text: &str| Command::Send { to: to.into(), text: text.into(), image: None };
        assert_eq!(Command::parse("send bob hello there"), Ok(Some(send("bob", "hello there"))));
        assert_eq!(Command::parse("  send bob   hi  "), Ok(Some(send("bob", "hi"))));
        let group = Command::Group { name: "trip".into(), members: vec!["bob".into(), "carol".into()] };
        assert_eq!(Command::parse("group trip bob carol"), Ok(Some(group.clone())));
        assert_eq!(group.names(), ["bob", "carol"]);
        assert_eq!(Command::parse("   "), Ok(None));
        assert_eq!(Command::parse("quit"), Ok(Some(Command::Quit)));
        let image = Command::Send { to: "bob".into(), text: String::new(), image: Some("https://x".into()) };
        assert_eq!(Command::parse("image bob https://x"), Ok(Some(image)));
        let post = Command::Post { hidden_from: vec!["bob".into()], text: "the sun - at last".into() };
        assert_eq!(Command::parse("post -bob the sun - at last"), Ok(Some(post)));
        assert_eq!(Command::parse("profile"), Ok(Some(Command::Profile)));
        assert_eq!(
            Command::parse("comment 2 so nice"),
            Ok(Some(Command::Comment { moment: 2, text: "so nice".into() }))
        );
    }

    #[test]
    fn what_is_not_understood_is_told() {
        for line in [
            "send",
            "send bob",
            "group",
            "group trip",
            "sned bob hi",
            "accept",
            "accept a b",
            "invite g",
            "look",
            "look x",
            "comment 1",
            "post",
            "post -bob",
            "owner g",
            "owner g a b",
            "ask",
            "contacts now",
        ] {
            assert!(Command::parse(line).is_err(), "{line}");
        }
        assert_eq!(Command::parse("rename trip"), Err("-- say: rename GROUP NAME".to_owned()));
    }

    /// A verb of the help that no line can say would be no verb.
    #[test]
    fn every_verb_of_the_help_is_understood() {
        for verb in VERBS {
            let rest = match verb.rest {
                "N" => "1",
                "N TEXT" => "1 text",
                rest if rest.starts_with('[') => "",
                rest if rest.contains(' ') => "one two",
                rest => rest,
            };
            let rest = if verb.name == "post" { "text" } else { rest };
            let line = format!("{} {rest}", verb.name);
            assert!(matches!(Command::parse(&line), Ok(Some(_))), "{line}");
            assert!(help().contains(verb.does));
        }
    }
}
