//! Documents that are looked through and changed.

use super::{DEPTH_MAX, Element, Name, Node, Reader};

/// How many parts a document has at most, and how long what is picked of it is, in bytes.
const PARTS_MAX: usize = 1 << 20;
const PICKED_BYTES_MAX: usize = 1 << 24;

/// A document: its parts by number, each after what it is in. The first one is the document itself.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(super) parts: Vec<Part>,
}

#[derive(Debug)]
pub(super) struct Part {
    pub(super) parent: usize,
    pub(super) children: Vec<usize>,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Document,
    Element { name: Name, attributes: Vec<(Name, String)> },
    Text(String),
    Data(String),
    Comment(String),
    Instruction(String),
    Directive(String),
}

/// A part of a document, or an attribute of one: its number, from 1 on. They are in the order of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(super) part: usize,
    pub(super) attribute: usize,
}

impl Place {
    pub(super) const ROOT: Place = Place { part: 0, attribute: 0 };

    pub(super) fn of(part: usize) -> Self {
        Place { part, attribute: 0 }
    }
}

impl Tree {
    /// A document of nothing.
    pub(crate) fn empty() -> Self {
        Tree { parts: vec![Part { parent: 0, children: Vec::new(), what: What::Document }] }
    }

    /// Reads a document.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut reader = Reader { text, at: 0, open: Vec::new(), top: Element::default(), first_only: false };
        reader.run()?;
        let top = reader.top.children;
        if !top.iter().any(|node| matches!(node, Node::Element(_))) {
            return Err("there is no element".to_owned());
        }
        // What stands before the first element or instruction is not kept, and of instructions only the declaration with
        // which the text begins.
        let begins = top.iter().position(|node| matches!(node, Node::Element(_) | Node::Instruction(_))).unwrap_or(0);
        let is_foreign = matches!(top[begins], Node::Instruction(_)) && !text.starts_with("<?xml");
        let mut tree = Tree::empty();
        for node in top.into_iter().skip(begins + usize::from(is_foreign)) {
            tree.add(0, node, &mut Vec::new())?;
        }
        Ok(tree)
    }

    /// Adds what was read. `spaces` are the prefixes that are declared around it.
    fn add(&mut self, parent: usize, node: Node, spaces: &mut Vec<String>) -> Result<(), String> {
        let what = match node {
            Node::Element(element) => {
                let known = spaces.len();
                let declared = element.attributes.iter().filter(|(name, _)| name.prefix == "xmlns");
                spaces.extend(declared.map(|(name, _)| name.local.clone()));
                let prefix = &element.name.prefix;
                if !prefix.is_empty() && prefix != "xml" && !spaces.contains(prefix) {
                    return Err(format!("the namespace {prefix} is missing"));
                }
                let part = self.push(parent, What::Element { name: element.name, attributes: element.attributes });
                for child in element.children {
                    self.add(part, child, spaces)?;
                }
                spaces.truncate(known);
                return Ok(());
            }
            Node::Text(text) => What::Text(text),
            Node::Data(text) => What::Data(text),
            Node::Comment(text) => What::Comment(text),
            Node::Instruction(text) => What::Instruction(text),
            Node::Directive(text) => What::Directive(text),
        };
        self.push(parent, what);
        Ok(())
    }

    fn push(&mut self, parent: usize, what: What) -> usize {
        let part = self.parts.len();
        self.parts.push(Part { parent, children: Vec::new(), what });
        self.parts[parent].children.push(part);
        part
    }

    /// The text of an element and of all within, or of what else there is at a place.
    pub(super) fn value(&self, place: Place) -> String {
        if place.attribute > 0 {
            return self.attribute(place).map(|(_, value)| value.clone()).unwrap_or_default();
        }
        match &self.parts[place.part].what {
            What::Comment(text) | What::Text(text) => text.clone(),
            What::Element { .. } | What::Data(_) => {
                let mut out = String::new();
                self.write_inner(place.part, &mut out);
                out
            }
            What::Document | What::Instruction(_) | What::Directive(_) => String::new(),
        }
    }

    pub(super) fn attribute(&self, place: Place) -> Option<&(Name, String)> {
        match &self.parts[place.part].what {
            What::Element { attributes, .. } => attributes.get(place.attribute.checked_sub(1)?),
            _ => None,
        }
    }

    fn write_inner(&self, part: usize, out: &mut String) {
        match &self.parts[part].what {
            What::Text(text) | What::Data(text) => out.push_str(text),
            What::Comment(_) => {}
            _ => self.parts[part].children.iter().for_each(|child| self.write_inner(*child, out)),
        }
    }

    /// The elements and texts at some places, one after the other; of attributes and of data the text.
    pub(crate) fn pick(&self, places: &[Place]) -> Result<String, String> {
        let mut out = String::new();
        for place in places {
            if out.len() > PICKED_BYTES_MAX {
                return Err(format!("the XPath leads to more than {PICKED_BYTES_MAX} bytes"));
            }
            match &self.parts[place.part].what {
                What::Data(_) => escape(&self.value(*place), &mut out),
                _ if place.attribute > 0 => escape(&self.value(*place), &mut out),
                What::Element { .. } | What::Text(_) => self.write(place.part, true, &mut out),
                _ => {}
            }
        }
        Ok(out)
    }

    /// Takes out what is at some places.
    pub(crate) fn remove(&mut self, places: &[Place]) {
        for place in places {
            if place.attribute > 0 {
                continue;
            }
            match &mut self.parts[place.part].what {
                What::Text(text) => text.clear(),
                What::Element { .. } | What::Comment(_) | What::Data(_) => {
                    let parent = self.parts[place.part].parent;
                    self.parts[parent].children.retain(|child| *child != place.part);
                }
                What::Document | What::Instruction(_) | What::Directive(_) => {}
            }
        }
        self.take_attributes(places);
    }

    /// Takes attributes out of their elements. Those whose names have a prefix stay.
    fn take_attributes(&mut self, places: &[Place]) -> Vec<(usize, Name, String)> {
        let mut taken = Vec::new();
        for place in places {
            if let Some((name, value)) = self.attribute(*place) {
                taken.push((place.part, name.clone(), value.clone()));
            }
        }
        for (part, name, _) in &taken {
            if let What::Element { attributes, .. } = &mut self.parts[*part].what
                && let Some(at) =
                    attributes.iter().position(|(known, _)| known.prefix.is_empty() && known.local == name.local)
            {
                attributes.remove(at);
            }
        }
        taken
    }

    /// Adds the content of another document to elements. Says what of the places is none.
    pub(crate) fn insert(&mut self, places: &[Place], other: &Tree) -> Result<(), String> {
        let mut wrong = Vec::new();
        for place in places {
            if self.parts.len() > PARTS_MAX {
                return Err(format!("the document has more than {PARTS_MAX} parts"));
            }
            match &self.parts[place.part].what {
                What::Element { .. } | What::Document if place.attribute == 0 => {
                    for child in &other.parts[0].children {
                        self.graft(place.part, other, *child);
                    }
                }
                _ => wrong.push(format!("InsertXML XPath selected non-element: {:?}", self.value(*place))),
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    fn graft(&mut self, parent: usize, other: &Tree, part: usize) {
        let added = self.push(parent, other.parts[part].what.clone());
        for child in &other.parts[part].children {
            self.graft(added, other, *child);
        }
    }

    /// Makes elements of attributes: the last ones of those that have them.
    pub(crate) fn attributes_to_elements(&mut self, places: &[Place]) {
        for (part, name, value) in self.take_attributes(places) {
            let name = Name { prefix: String::new(), local: name.local };
            let element = self.push(part, What::Element { name, attributes: Vec::new() });
            self.push(element, What::Text(value));
        }
    }

    /// Puts texts that do not stand alone into elements of their own.
    pub(crate) fn texts_to_elements(&mut self, places: &[Place], name: &str) -> Result<(), String> {
        for place in places.iter().filter(|place| place.attribute == 0) {
            self.wrap(place.part, name, 0)?;
        }
        Ok(())
    }

    fn wrap(&mut self, part: usize, name: &str, depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("exceeded maximum XML nesting depth of {DEPTH_MAX}"));
        }
        if !matches!(self.parts[part].what, What::Element { .. } | What::Document) {
            return Ok(());
        }
        let children = self.parts[part].children.clone();
        let (mut texts, mut elements) = (0, 0);
        for child in &children {
            match self.parts[*child].what {
                What::Element { .. } => {
                    self.wrap(*child, name, depth + 1)?;
                    elements += 1;
                }
                What::Text(_) => texts += 1,
                _ => {}
            }
        }
        if texts == 0 || texts + elements <= 1 {
            return Ok(());
        }
        for child in children {
            if matches!(self.parts[child].what, What::Text(_)) {
                let element = What::Element { name: Name::new(name), attributes: Vec::new() };
                let text = std::mem::replace(&mut self.parts[child].what, element);
                self.push(child, text);
            }
        }
        Ok(())
    }

    /// The document as a text.
    pub(crate) fn write_all(&self) -> String {
        let mut out = String::new();
        self.parts[0].children.iter().for_each(|child| self.write(*child, true, &mut out));
        out
    }

    fn write(&self, part: usize, keeps_space: bool, out: &mut String) {
        match &self.parts[part].what {
            What::Document => {}
            What::Text(text) => escape(if keeps_space { text } else { text.trim() }, out),
            What::Data(text) => out.extend(["<![CDATA[", text, "]]>"]),
            What::Comment(text) => out.extend(["<!--", text, "-->"]),
            What::Directive(text) => out.extend(["<!", text, ">"]),
            What::Instruction(text) => write_instruction(text, out),
            What::Element { name, attributes } => {
                let space = attributes.iter().find(|(name, _)| name.prefix == "xml" && name.local == "space");
                let keeps_space = match space.map(|(_, value)| &**value) {
                    Some("preserve") => true,
                    Some("default") => false,
                    _ => keeps_space,
                };
                out.push('<');
                write_name(name, out);
                for (name, value) in attributes {
                    out.push(' ');
                    write_name(name, out);
                    out.push_str("=\"");
                    escape(value, out);
                    out.push('"');
                }
                out.push('>');
                self.parts[part].children.iter().for_each(|child| self.write(*child, keeps_space, out));
                out.push_str("</");
                write_name(name, out);
                out.push('>');
            }
        }
    }
}

fn write_name(name: &Name, out: &mut String) {
    if !name.prefix.is_empty() {
        out.extend([&name.prefix, ":"]);
    }
    out.push_str(&name.local);
}

/// Writes an instruction; the declaration of the document by its attributes.
fn write_instruction(text: &str, out: &mut String) {
    let (target, rest) = text.split_once([' ', '\t', '\r', '\n']).unwrap_or((text, ""));
    out.extend(["<?", target]);
    if target == "xml" {
        let mut names: Vec<&str> = Vec::new();
        for (name, value) in rest.split(' ').filter_map(|pair| pair.trim().split_once('=')) {
            if name.is_empty() || names.contains(&name) {
                continue;
            }
            names.push(name);
            out.extend([" ", name, "=\""]);
            escape(value.trim_matches(['"', '\'']), out);
            out.push('"');
        }
    } else if !rest.trim().is_empty() {
        out.extend([" ", rest.trim()]);
    }
    out.push_str("?>");
}

/// Writes a text as Go does it for HTML.
fn escape(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            other => out.push(other),
        }
    }
}
