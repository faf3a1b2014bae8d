//! `#[derive(Arguments)]` on an enum: the blocks of a group.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, DataEnum, DeriveInput, Error, Fields, Type, Variant};

use crate::attributes::{Options, doc, exclusive, required_doc};
use crate::record::all;
use crate::string_enum::snake_case;

pub(crate) fn expand(input: &DeriveInput, data: &DataEnum) -> syn::Result<TokenStream> {
    let variants = all(data.variants.iter().map(variant).collect())?;
    for (index, (name, ..)) in variants.iter().enumerate() {
        if variants[..index].iter().any(|(other, ..)| other == name) {
            return Err(Error::new(data.variants[index].ident.span(), format!("two variants are called `{name}`")));
        }
    }
    let ident = &input.ident;
    let name = ident.to_string();
    let doc = doc(&input.attrs).unwrap_or_default();
    let rows = variants.iter().map(|(_, row, _)| row);
    let wraps = data.variants.iter().zip(&variants).enumerate().map(|(index, (variant, (_, _, ty)))| {
        let ident = &variant.ident;
        match ty {
            Some(ty) => quote!(#index => ::corten_config::arguments::unboxed::<#ty>(slot).map(Self::#ident),),
            None => quote!(#index => ::core::option::Option::Some(Self::#ident),),
        }
    });
    let unwraps = data.variants.iter().zip(&variants).enumerate().map(|(index, (variant, (_, _, ty)))| {
        let ident = &variant.ident;
        match ty {
            Some(_) => quote!(Self::#ident(inner) => (#index, inner as &dyn ::core::any::Any),),
            None => quote!(Self::#ident => (#index, &() as &dyn ::core::any::Any),),
        }
    });
    Ok(quote! {
        #[automatically_derived]
        impl ::corten_config::arguments::OneOf for #ident {
            const SCHEMA: &'static ::corten_config::schema::OneOfSchema = &::corten_config::schema::OneOfSchema {
                name: ::core::concat!(::core::module_path!(), "::", #name),
                doc: #doc,
                variants: &[#(#rows),*],
            };
            fn wrap(index: usize, slot: ::corten_config::schema::Slot) -> ::core::option::Option<Self> {
                match index {
                    #(#wraps)*
                    _ => ::core::option::Option::None,
                }
            }
            fn unwrap(&self) -> (usize, &dyn ::core::any::Any) {
                match self {
                    #(#unwraps)*
                }
            }
        }
    })
}

/// The name of a variant, its row of the table and the type that it holds.
fn variant(variant: &Variant) -> syn::Result<(String, TokenStream, Option<Type>)> {
    let doc = required_doc(&variant.attrs, &variant.ident, "variant")?;
    exclusive(&variant.attrs, &["arg", "block", "flatten", "label"])?;
    let wrong = |attribute: &&Attribute| ["arg", "flatten", "label"].iter().any(|name| attribute.path().is_ident(name));
    if let Some(wrong) = variant.attrs.iter().find(wrong) {
        return Err(Error::new_spanned(wrong, "a variant is a block: it takes `#[block(...)]`"));
    }
    let options = Options::read(&variant.attrs, "block", &["name", "stability", "deprecated"])?;
    let ty = match &variant.fields {
        Fields::Unit => None,
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => Some(fields.unnamed[0].ty.clone()),
        _ => {
            return Err(Error::new(
                variant.ident.span(),
                "a variant holds the arguments of its block, `Json(Json)`, or nothing",
            ));
        }
    };
    let name = options.name.clone().unwrap_or_else(|| snake_case(&variant.ident.to_string()));
    let stability = options.stability_tokens();
    let deprecated = options.deprecated_tokens();
    let body = match &ty {
        Some(ty) => quote!(<#ty as ::corten_config::arguments::BlockBody>::BODY),
        None => quote!(<() as ::corten_config::arguments::BlockBody>::BODY),
    };
    let row = quote!(::corten_config::schema::Variant {
        name: #name,
        doc: #doc,
        stability: #stability,
        deprecated: #deprecated,
        body: #body,
    });
    Ok((name, row, ty))
}
