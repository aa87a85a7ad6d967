use super::RequestCtx;
use crate::expr::{VarSource, Variable};
use std::borrow::Cow;
impl VarSource for RequestCtx<'_> {
    fn var(&self, _: &Variable) -> Option<Cow<'_, str>> {
        None
    }
}
