//! `#[derive(Exports)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Field};

use crate::attributes::{Options, exclusive, required_doc};
use crate::record::{Kind, Row, all, check_names, named, record};

pub(crate) fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    if let Some(parameter) = input.generics.params.first() {
        return Err(Error::new_spanned(parameter, "exports have no type parameters: their schema is one static table"));
    }
    let Data::Struct(data) = &input.data else {
        return Err(Error::new(input.ident.span(), "exports are a struct"));
    };
    let fields = named(&data.fields, &input.ident)?;
    let rows = all(fields.named.iter().map(row).collect())?;
    check_names(&rows)?;
    let record = record(input, &rows);
    let ident = &input.ident;
    Ok(quote! {
        #record
        #[automatically_derived]
        impl ::corten_config::arguments::Exports for #ident {}
    })
}

fn row(field: &Field) -> syn::Result<Row> {
    let Some(ident) = &field.ident else { return Err(Error::new_spanned(field, "the fields need names")) };
    let doc = required_doc(&field.attrs, ident, "field")?;
    exclusive(&field.attrs, &["export"])?;
    let options = Options::read(&field.attrs, "export", &["name", "stability", "deprecated", "secret_if"])?;
    let ty = &field.ty;
    let kind = quote!(::corten_config::schema::FieldKind::Attr {
        ty: <#ty as ::corten_config::decode::Typed>::TYPE,
        absent: ::corten_config::schema::Absent::Zero,
    });
    Ok(Row::new(Kind::Attr, &options, ident, &doc, &kind))
}
