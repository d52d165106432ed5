//! `--report`: the result as one page that needs nothing else. The page's script draws what stands in
//! the same JSON that `--json` writes, so that page and file cannot differ.

use super::error::BenchError;
use super::report::Report;
use std::path::Path;

const TEMPLATE: &str = include_str!("report.html");
const PLACE: &str = "/*RESULT*/";

/// Writes the page.
pub(crate) fn write(path: &Path, report: &Report) -> Result<(), BenchError> {
    let failed = |source| BenchError::Json {
        path: path.to_path_buf(),
        source,
    };
    let json = serde_json::to_string(report).map_err(|error| failed(error.into()))?;
    std::fs::write(path, page(&json)).map_err(failed)
}

/// Inside a script, `</` would end it, whatever string it stands in.
fn page(json: &str) -> String {
    TEMPLATE.replacen(PLACE, &json.replace("</", "<\\/"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_needs_nothing_else_and_no_name_can_break_out_of_its_script() {
        assert_eq!(TEMPLATE.matches(PLACE).count(), 1);
        for outside in ["http:", "https:", "src=", "<link", "@import", "url("] {
            let found = TEMPLATE.replace("http://www.w3.org/2000/svg", "");
            assert!(!found.contains(outside), "{outside}");
        }
        let page = page(r#"{"cpu":"</script><b>"}"#);
        assert_eq!(
            page.matches("</script>").count(),
            TEMPLATE.matches("</script>").count()
        );
        assert!(page.contains(r#"<\/script><b>"#));
    }
}
