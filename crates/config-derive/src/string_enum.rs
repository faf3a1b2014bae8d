//! `#[derive(StringEnum)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, Variant};

use crate::attributes::{Options, exclusive, option, required_doc};
use crate::record::all;

pub(crate) fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let Data::Enum(data) = &input.data else {
        return Err(Error::new(input.ident.span(), "only an enum of words is read from text"));
    };
    exclusive(&input.attrs, &["string_enum"])?;
    let options = Options::read(&input.attrs, "string_enum", &["refusal", "ignore_case"])?;
    let values = all(data.variants.iter().map(value).collect())?;
    if values.is_empty() {
        return Err(Error::new(input.ident.span(), "an enum of words needs at least one"));
    }
    for (index, value) in values.iter().enumerate() {
        if values[..index].iter().any(|other| other.name == value.name) {
            let text = format!("two variants are written `{}`", value.name);
            return Err(Error::new(data.variants[index].ident.span(), text));
        }
    }
    let zeros: Vec<usize> = (0..values.len()).filter(|index| values[*index].zero).collect();
    if let Some(second) = zeros.get(1) {
        return Err(Error::new(data.variants[*second].ident.span(), "only one variant is what `null` stands for"));
    }
    let zero = zeros.first().copied().unwrap_or(0);

    let ident = &input.ident;
    let name = ident.to_string();
    let rows = values.iter().map(|value| &value.row);
    let variants: Vec<_> = data.variants.iter().map(|variant| &variant.ident).collect();
    let indexes: Vec<usize> = (0..variants.len()).collect();
    let refusal = option(options.refusal.as_ref());
    let ignore_case = options.ignore_case;
    Ok(quote! {
        #[automatically_derived]
        impl ::corten_config::arguments::StringEnum for #ident {
            const WORDS: &'static ::corten_config::schema::Words = &::corten_config::schema::Words {
                name: ::core::concat!(::core::module_path!(), "::", #name),
                values: &[#(#rows),*],
                zero: #zero,
                ignore_case: #ignore_case,
                refusal: #refusal,
            };
            fn from_index(index: usize) -> ::core::option::Option<Self> {
                match index {
                    #(#indexes => ::core::option::Option::Some(Self::#variants),)*
                    _ => ::core::option::Option::None,
                }
            }
            fn index(&self) -> usize {
                match self {
                    #(Self::#variants => #indexes,)*
                }
            }
        }
        #[automatically_derived]
        impl ::corten_config::decode::Decode for #ident {
            const SHAPE: ::corten_config::schema::Shape =
                ::corten_config::schema::Shape::Words(<Self as ::corten_config::arguments::StringEnum>::WORDS);
            fn decode(
                value: &::corten_config::Value,
                cx: &::corten_config::decode::ValueContext,
            ) -> ::core::result::Result<Self, ::corten_config::decode::Mismatches> {
                ::corten_config::arguments::from_word(value, cx)
            }
            fn zero() -> ::core::option::Option<Self> {
                <Self as ::corten_config::arguments::StringEnum>::from_index(#zero)
            }
            fn to_value(&self) -> ::corten_config::Value {
                ::corten_config::Value::string(::corten_config::arguments::StringEnum::as_str(self))
            }
        }
    })
}

struct Word {
    name: String,
    zero: bool,
    row: TokenStream,
}

fn value(variant: &Variant) -> syn::Result<Word> {
    let doc = required_doc(&variant.attrs, &variant.ident, "variant")?;
    if !matches!(variant.fields, Fields::Unit) {
        return Err(Error::new(variant.ident.span(), "a word holds nothing"));
    }
    exclusive(&variant.attrs, &["value"])?;
    let options = Options::read(&variant.attrs, "value", &["name", "zero", "stability"])?;
    let name = options.name.clone().unwrap_or_else(|| snake_case(&variant.ident.to_string()));
    let stability = options.stability_tokens();
    let row = quote!(::corten_config::schema::Word { text: #name, doc: #doc, stability: #stability });
    Ok(Word { name, zero: options.zero, row })
}

/// `LabelMap` as `label_map`, `HTTPServer` as `http_server`.
pub(crate) fn snake_case(name: &str) -> String {
    let characters: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (index, character) in characters.iter().enumerate() {
        let after_lower = index > 0 && !characters[index - 1].is_uppercase();
        let before_lower = characters.get(index + 1).is_some_and(|next| next.is_lowercase());
        if character.is_uppercase() && index > 0 && (after_lower || before_lower) {
            out.push('_');
        }
        out.extend(character.to_lowercase());
    }
    out
}
