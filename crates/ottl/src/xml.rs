//! XML, as strict as Go's `encoding/xml`.

pub(crate) mod tree;
pub(crate) mod xpath;

/// How deep elements may nest.
pub(crate) const DEPTH_MAX: usize = 100;

/// What stands within an element.
#[derive(Debug)]
pub(crate) enum Node {
    Element(Element),
    Text(String),
    /// `<![CDATA[...]]>`.
    Data(String),
    /// `<!--...-->`.
    Comment(String),
    /// `<?...?>`.
    Instruction(String),
    /// `<!...>`.
    Directive(String),
}

/// An element.
#[derive(Debug, Default)]
pub(crate) struct Element {
    pub(crate) name: Name,
    pub(crate) attributes: Vec<(Name, String)>,
    pub(crate) children: Vec<Node>,
}

/// A name, with the prefix of its space if it has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) prefix: String,
    pub(crate) local: String,
}

impl Name {
    fn new(name: &str) -> Self {
        let (prefix, local) = name.split_once(':').unwrap_or(("", name));
        Name { prefix: prefix.to_owned(), local: local.to_owned() }
    }
}

/// Reads the first element, and says how many bytes it and what stands before it take.
pub(crate) fn first(text: &str) -> Result<(Element, usize), String> {
    let mut reader = Reader { text, at: 0, open: Vec::new(), top: Element::default(), first_only: true };
    reader.run()?;
    let element = reader.top.children.into_iter().find_map(|node| match node {
        Node::Element(element) => Some(element),
        _ => None,
    });
    Ok((element.ok_or("there is no element")?, reader.at))
}

/// Reads all elements: they are within a nameless one.
pub(crate) fn all(text: &str) -> Result<Element, String> {
    let mut reader = Reader { text, at: 0, open: Vec::new(), top: Element::default(), first_only: false };
    reader.run()?;
    if reader.top.children.iter().any(|node| matches!(node, Node::Element(_))) {
        return Ok(reader.top);
    }
    Err("there is no element".to_owned())
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// The elements that are open, with their names as they are written.
    open: Vec<(&'a str, Element)>,
    top: Element,
    first_only: bool,
}

/// Whether XML may contain a character.
fn is_character(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn take(&mut self, prefix: &str) -> bool {
        let is = self.rest().starts_with(prefix);
        if is {
            self.at += prefix.len();
        }
        is
    }

    /// Takes what stands before an end, and the end.
    fn until(&mut self, end: &str, what: &str) -> Result<&'a str, String> {
        let rest = self.rest();
        let len = rest.find(end).ok_or_else(|| format!("unexpected end in {what}"))?;
        self.at += len + end.len();
        Ok(&rest[..len])
    }

    fn spaces(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn name(&mut self) -> Result<&'a str, String> {
        let rest = self.rest();
        let is = |character: char| character.is_alphanumeric() || matches!(character, '_' | ':' | '.' | '-');
        let len = rest.find(|character| !is(character)).unwrap_or(rest.len());
        let begins = rest.starts_with(|first: char| first.is_alphabetic() || first == '_' || first == ':');
        if len == 0 || !begins {
            return Err("a name is expected".to_owned());
        }
        self.at += len;
        Ok(&rest[..len])
    }

    fn push(&mut self, node: Node) {
        match self.open.last_mut() {
            Some((_, parent)) => parent.children.push(node),
            None => self.top.children.push(node),
        }
    }

    fn run(&mut self) -> Result<(), String> {
        while self.at < self.text.len() {
            if !self.rest().starts_with('<') {
                let rest = self.rest();
                let len = rest.find('<').unwrap_or(rest.len());
                if rest[..len].contains("]]>") {
                    return Err("unescaped ]]> not in CDATA section".to_owned());
                }
                let text = plain(&rest[..len])?;
                self.at += len;
                self.push(Node::Text(text));
            } else if self.take("<!--") {
                let comment = self.until("-->", "a comment")?;
                if comment.contains("--") {
                    return Err("a comment contains --".to_owned());
                }
                self.push(Node::Comment(comment.to_owned()));
            } else if self.take("<![CDATA[") {
                let data = self.until("]]>", "a CDATA section")?;
                if !data.chars().all(is_character) {
                    return Err("illegal character".to_owned());
                }
                self.push(Node::Data(data.replace("\r\n", "\n").replace('\r', "\n")));
            } else if self.take("<?") {
                let instruction = self.until("?>", "an instruction")?;
                if let Some(declaration) = instruction.strip_prefix("xml ")
                    && let Some((_, encoding)) = declaration.split_once("encoding=")
                    && !encoding.trim_matches(['"', '\'', ' ']).to_ascii_lowercase().starts_with("utf-8")
                {
                    return Err("the encoding is not UTF-8".to_owned());
                }
                self.push(Node::Instruction(instruction.to_owned()));
            } else if self.take("<!") {
                self.directive()?;
            } else if self.take("</") {
                self.close()?;
                if self.first_only && self.open.is_empty() {
                    return Ok(());
                }
            } else {
                self.at += 1;
                if self.start()? && self.first_only && self.open.is_empty() {
                    return Ok(());
                }
            }
        }
        if let Some((name, _)) = self.open.last() {
            return Err(format!("element <{name}> is not closed"));
        }
        Ok(())
    }

    /// Reads a declaration, in which others may stand.
    fn directive(&mut self) -> Result<(), String> {
        let (mut depth, mut quote) = (1, None);
        for (at, character) in self.rest().char_indices() {
            match (character, quote) {
                (_, Some(open)) if open == character => quote = None,
                (_, Some(_)) => {}
                ('"' | '\'', None) => quote = Some(character),
                ('<', None) => depth += 1,
                ('>', None) => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                let directive = self.rest()[..at].to_owned();
                self.push(Node::Directive(directive));
                self.at += at + 1;
                return Ok(());
            }
        }
        Err("unexpected end in a declaration".to_owned())
    }

    fn close(&mut self) -> Result<(), String> {
        let name = self.name()?;
        self.spaces();
        if !self.take(">") {
            return Err(format!("invalid characters between </{name} and >"));
        }
        match self.open.pop() {
            Some((open, element)) if open == name => {
                self.push(Node::Element(element));
                Ok(())
            }
            Some((open, _)) => Err(format!("element <{open}> closed by </{name}>")),
            None => Err(format!("unexpected end element </{name}>")),
        }
    }

    /// Reads the start of an element behind `<`, and says whether it is closed at once.
    fn start(&mut self) -> Result<bool, String> {
        let name = self.name()?;
        let mut element = Element { name: Name::new(name), ..Element::default() };
        loop {
            self.spaces();
            if self.take("/>") {
                self.push(Node::Element(element));
                return Ok(true);
            }
            if self.take(">") {
                if self.open.len() >= DEPTH_MAX {
                    return Err(format!("elements nest more than {DEPTH_MAX} deep"));
                }
                self.open.push((name, element));
                return Ok(false);
            }
            let attribute = self.name()?;
            self.spaces();
            if !self.take("=") {
                return Err("attribute name without = in element".to_owned());
            }
            self.spaces();
            let quote = ["\"", "'"].into_iter().find(|quote| self.take(quote));
            let quote = quote.ok_or("unquoted or missing attribute value in element")?;
            let value = self.until(quote, "an attribute")?;
            if value.contains('<') {
                return Err("unescaped < inside quoted string".to_owned());
            }
            element.attributes.push((Name::new(attribute), plain(value)?));
        }
    }
}

/// A text with its entities replaced.
fn plain(text: &str) -> Result<String, String> {
    if !text.chars().all(is_character) {
        return Err("illegal character".to_owned());
    }
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(text.len());
    let mut parts = text.split('&');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (entity, rest) = part.split_once(';').ok_or("invalid character entity")?;
        let number = |digits: &str, radix| u32::from_str_radix(digits, radix).ok().and_then(char::from_u32);
        let character = match entity {
            "lt" => Some('<'),
            "gt" => Some('>'),
            "amp" => Some('&'),
            "apos" => Some('\''),
            "quot" => Some('"'),
            _ => match entity.strip_prefix('#') {
                Some(digits) => match digits.strip_prefix('x') {
                    Some(digits) => number(digits, 16),
                    None => number(digits, 10),
                },
                None => None,
            },
        };
        let character = character.filter(|character| is_character(*character));
        out.push(character.ok_or_else(|| format!("invalid character entity &{entity};"))?);
        out.push_str(rest);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn deep_elements_are_refused() {
        assert!(first(&("<a>".repeat(DEPTH_MAX) + &"</a>".repeat(DEPTH_MAX))).is_ok());
        assert!(first(&("<a>".repeat(DEPTH_MAX + 1) + &"</a>".repeat(DEPTH_MAX + 1))).is_err());
        assert!(all(&"<a>".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in prop_oneof![
            any::<String>(),
            proptest::collection::vec(prop_oneof![
                Just("<a>"), Just("</a>"), Just("<b x='1'/>"), Just("<"), Just(">"), Just("&lt;"), Just("&#x41;"), Just("&"),
                Just("<!--"), Just("-->"), Just("<![CDATA["), Just("]]>"), Just("<?xml ?>"), Just("<!D"), Just("é"), Just("\""),
            ], 0..20).prop_map(|parts| parts.concat()),
        ]) {
            if let Ok((_, len)) = first(&text) {
                prop_assert!(text.is_char_boundary(len));
            }
            let _ = all(&text);
        }
    }
}
