//! What stands in the attributes of a field, a variant or a type.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::meta::ParseNestedMeta;
use syn::{Attribute, Error, Expr, ExprLit, Ident, Lit, LitStr, Meta, Path, Token};

use crate::literal;

/// The doc comment: its lines without the space that follows the slashes.
pub(crate) fn doc(attributes: &[Attribute]) -> Option<String> {
    let mut lines = Vec::new();
    for attribute in attributes {
        if let Meta::NameValue(meta) = &attribute.meta
            && meta.path.is_ident("doc")
            && let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &meta.value
        {
            for line in text.value().split('\n') {
                lines.push(line.strip_prefix(' ').unwrap_or(line).trim_end().to_owned());
            }
        }
    }
    let doc = lines.join("\n").trim().to_owned();
    (!doc.is_empty()).then_some(doc)
}

/// The doc comment, which must stand.
pub(crate) fn required_doc(attributes: &[Attribute], item: &Ident, what: &str) -> syn::Result<String> {
    doc(attributes).ok_or_else(|| {
        Error::new(item.span(), format!("{what} `{}` has no doc comment: it is the user's reference", item.unraw()))
    })
}

/// What may stand in any of the attributes. Each kind of field says which of it applies.
#[derive(Default)]
pub(crate) struct Options {
    /// Which names were given, with their place.
    given: Vec<(String, Span)>,
    pub(crate) name: Option<String>,
    pub(crate) default: Option<String>,
    /// `default` without a literal, as a block has it.
    pub(crate) default_flag: bool,
    pub(crate) default_with: Option<Path>,
    pub(crate) default_text: Option<String>,
    pub(crate) optional: bool,
    pub(crate) required: bool,
    pub(crate) group: Option<String>,
    pub(crate) defaults: Vec<(String, String)>,
    pub(crate) stability: Option<Ident>,
    pub(crate) deprecated: Option<String>,
    pub(crate) secret_if: Option<String>,
    pub(crate) zero: bool,
    pub(crate) refusal: Option<Path>,
    pub(crate) ignore_case: bool,
}

impl Options {
    /// Reads the attributes of one name, of which `allowed` says what may stand in them.
    pub(crate) fn read(attributes: &[Attribute], name: &str, allowed: &[&str]) -> syn::Result<Self> {
        let mut options = Options::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident(name)) {
            // `#[block]` alone says everything by being there.
            if matches!(attribute.meta, Meta::Path(_)) {
                continue;
            }
            attribute.parse_nested_meta(|meta| options.read_one(&meta, name, allowed))?;
        }
        Ok(options)
    }

    fn read_one(&mut self, meta: &ParseNestedMeta<'_>, attribute: &str, allowed: &[&str]) -> syn::Result<()> {
        let key = meta.path.get_ident().map(Ident::to_string).unwrap_or_default();
        if !allowed.contains(&key.as_str()) {
            let list = allowed.join("`, `");
            return Err(meta.error(format!("`{attribute}` takes `{list}`")));
        }
        if self.has(&key) {
            return Err(meta.error(format!("`{key}` stands twice")));
        }
        let span = meta.path.get_ident().map_or_else(Span::call_site, Ident::span);
        match key.as_str() {
            // A word is any text, unlike the name of a field: `""`, `TLS 1.2`.
            "name" if attribute == "value" => self.name = Some(meta.value()?.parse::<LitStr>()?.value()),
            "name" => self.name = Some(user_name(&meta.value()?.parse()?)?),
            "group" => self.group = Some(user_name(&meta.value()?.parse()?)?),
            "default" if attribute == "block" => self.default_flag = true,
            "default" => self.default = Some(literal::parse(meta.value()?)?),
            "default_with" => self.default_with = Some(meta.value()?.parse()?),
            "default_text" => self.default_text = Some(meta.value()?.parse::<LitStr>()?.value()),
            "optional" => self.optional = true,
            "required" => self.required = true,
            "zero" => self.zero = true,
            "ignore_case" => self.ignore_case = true,
            "refusal" => self.refusal = Some(meta.value()?.parse()?),
            "stability" => self.stability = Some(stability(meta.value()?.parse()?)?),
            "secret_if" => self.secret_if = Some(meta.value()?.parse::<LitStr>()?.value()),
            "deprecated" => self.deprecated = Some(meta.value()?.parse::<LitStr>()?.value()),
            "defaults" => {
                let content;
                syn::parenthesized!(content in meta.input);
                while !content.is_empty() {
                    let name = content.call(Ident::parse_any)?.unraw().to_string();
                    content.parse::<Token![=]>()?;
                    self.defaults.push((name, literal::parse(&content)?));
                    if !content.is_empty() {
                        content.parse::<Token![,]>()?;
                    }
                }
            }
            _ => return Err(meta.error(format!("`{key}` is not known"))),
        }
        self.given.push((key, span));
        Ok(())
    }

    /// Whether something was given.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.given.iter().any(|(given, _)| given == key)
    }

    /// Refuses a second one of several that exclude each other.
    pub(crate) fn at_most_one(&self, keys: &[&str]) -> syn::Result<()> {
        let mut given = self.given.iter().filter(|(key, _)| keys.contains(&key.as_str()));
        match (given.next(), given.next()) {
            (Some((first, _)), Some((second, span))) => {
                Err(Error::new(*span, format!("`{first}` and `{second}` exclude each other")))
            }
            _ => Ok(()),
        }
    }

    /// Refuses one that means nothing without another.
    pub(crate) fn needs(&self, key: &str, other: &str) -> syn::Result<()> {
        match self.given.iter().find(|(given, _)| given == key) {
            Some((_, span)) if !self.has(other) => Err(Error::new(*span, format!("`{key}` needs `{other}`"))),
            _ => Ok(()),
        }
    }

    /// The stability as an expression.
    pub(crate) fn stability_tokens(&self) -> TokenStream {
        match self.stability.as_ref().map(Ident::to_string).as_deref() {
            Some("experimental") => quote!(::corten_config::schema::Stability::Experimental),
            Some("public_preview") => quote!(::corten_config::schema::Stability::PublicPreview),
            _ => quote!(::corten_config::schema::Stability::GenerallyAvailable),
        }
    }

    /// The note of deprecation as an expression.
    pub(crate) fn deprecated_tokens(&self) -> TokenStream {
        option(self.deprecated.as_ref())
    }

    /// The defaults of another place as an expression.
    pub(crate) fn defaults_tokens(&self) -> TokenStream {
        let pairs = self.defaults.iter().map(|(name, text)| quote!((#name, #text)));
        quote!(&[#(#pairs),*])
    }
}

/// `None` or `Some(...)` as an expression.
pub(crate) fn option<T: ToTokens>(value: Option<&T>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}

/// Refuses a second attribute of those that say what a field is.
pub(crate) fn exclusive(attributes: &[Attribute], names: &[&str]) -> syn::Result<Option<String>> {
    let mut found: Option<String> = None;
    for attribute in attributes {
        let Some(name) = attribute.path().get_ident().map(Ident::to_string) else { continue };
        if !names.contains(&name.as_str()) {
            continue;
        }
        match &found {
            Some(first) if *first == name => {
                return Err(Error::new_spanned(attribute, format!("`#[{name}]` stands twice")));
            }
            Some(first) => {
                return Err(Error::new_spanned(attribute, format!("a field is either `#[{first}]` or `#[{name}]`")));
            }
            None => found = Some(name),
        }
    }
    Ok(found)
}

/// A name that the user can write: identifiers joined by dots, none of them a word of the language.
fn user_name(text: &LitStr) -> syn::Result<String> {
    let name = text.value();
    let valid = name.split('.').all(|part| {
        let mut characters = part.chars();
        characters.next().is_some_and(|first| first.is_alphabetic() || first == '_')
            && characters.all(|next| next.is_alphanumeric() || next == '_')
            && !["true", "false", "null"].contains(&part)
    });
    if valid { Ok(name) } else { Err(Error::new(text.span(), "no name that a user can write")) }
}

fn stability(level: Ident) -> syn::Result<Ident> {
    if ["experimental", "public_preview", "generally_available"].contains(&level.to_string().as_str()) {
        Ok(level)
    } else {
        Err(Error::new(level.span(), "a stability is `experimental`, `public_preview` or `generally_available`"))
    }
}
