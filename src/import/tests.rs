use std::fmt::Write as _;
use std::io::{Cursor, Write as _};

use proptest::prelude::*;
use rust_xlsxwriter::{ExcelDateTime, Format, Workbook};

use super::{Error, Imported, Rejected};

fn read(document: &[u8]) -> Result<Imported, Error> {
    super::read(document, "+57", &mut |_| ())
}

/// `number|name|email|empresa|cargo|variables` of each client.
fn shown(imported: &Imported) -> Vec<String> {
    let show = |client: &domain::group::NewClient| {
        let optional = |text: &Option<String>| text.clone().unwrap_or_default();
        format!(
            "{}|{}|{}|{}|{}|{}",
            client.phone_number,
            client.name,
            optional(&client.email),
            optional(&client.empresa),
            optional(&client.cargo),
            serde_json::Value::Object(client.variables.clone())
        )
    };
    imported.clients.iter().map(show).collect()
}

fn reasons(imported: &Imported) -> Vec<String> {
    let rejected = imported.rejected.iter();
    rejected
        .map(|Rejected { row, reason }| format!("{row}: {reason}"))
        .collect()
}

/// What every format of the example must give.
const EXPECTED: [&str; 3] = [
    r#"+573001234567|Dr. García|garcia@hospital.com|Hospital Central|Cardiólogo|{"Cédula":"79123456","ciudad":"Barranquilla"}"#,
    r#"+573007654321|Ana Peña|||Médica|{"Cédula":"1.5","ciudad":"Cali"}"#,
    "+573109998877||||Jefe|{}",
];
const REJECTED: [&str; 3] = [
    "5: el teléfono está repetido: ya está en la fila 2",
    "6: el teléfono no es un número válido",
    "7: falta el teléfono",
];

const EXAMPLE: &str = "Nombre,TELÉFONO,Correo,Empresa,Cargo,Cédula,ciudad,
Dr. García,300-123-4567,garcia@hospital.com,Hospital Central,Cardiólogo,79123456,Barranquilla,sin encabezado
Ana Peña,3007654321.0,,,Médica,1.5,Cali
,(310) 999 88 77,,,Jefe
García otra vez,+573001234567
Corto,12345
Sin teléfono,

";

fn gives_the_example(document: &[u8]) {
    let imported = read(document).unwrap();
    assert_eq!(shown(&imported), EXPECTED);
    assert_eq!(reasons(&imported), REJECTED);
}

#[test]
fn csv_is_read_in_every_dialect() {
    for delimiter in [",", ";", "\t"] {
        let text = EXAMPLE.replace(',', delimiter);
        gives_the_example(text.as_bytes());
        gives_the_example(text.replace('\n', "\r\n").as_bytes());
        gives_the_example(&[b"\xef\xbb\xbf", text.as_bytes()].concat());
        gives_the_example(&encoding_rs::WINDOWS_1252.encode(&text).0);
        let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        gives_the_example(&[b"\xff\xfe", &utf16[..]].concat());
    }
    let quoted = "telefono;nombre\n3001234567;\"Pérez; Ana \"\"la jefa\"\"\"\n";
    let imported = read(quoted.as_bytes()).unwrap();
    assert_eq!(imported.clients[0].name, "Pérez; Ana \"la jefa\"");
    let declared = read(b"sep=;\r\ncelular;a,b,c\n3001234567;1\n12;2\n").unwrap();
    assert_eq!(shown(&declared), [r#"+573001234567|||||{"a,b,c":"1"}"#]);
    assert_eq!(declared.rejected[0].row, 4);
}

fn xlsx(fill: impl FnOnce(&mut Workbook)) -> Vec<u8> {
    let mut book = Workbook::new();
    fill(&mut book);
    book.save_to_buffer().unwrap()
}

#[test]
fn xlsx_is_read_with_numbers_as_numbers() {
    let document = xlsx(|book| {
        book.add_worksheet().set_name("vacía").unwrap();
        let sheet = book.add_worksheet();
        for (row, line) in (0..).zip(EXAMPLE.lines()) {
            for (column, text) in (0..).zip(line.split(',')) {
                match text.parse::<f64>() {
                    Ok(number) => sheet.write_number(row, column, number).unwrap(),
                    Err(_) => sheet.write_string(row, column, text).unwrap(),
                };
            }
        }
    });
    gives_the_example(&document);
}

#[test]
fn dates_and_truth_values_are_words() {
    let document = xlsx(|book| {
        let sheet = book.add_worksheet();
        for (column, header) in (0..).zip(["celular", "cita", "hora", "activo"]) {
            sheet.write_string(0, column, header).unwrap();
        }
        sheet.write_number(1, 0, 3_001_234_567.0).unwrap();
        let date = Format::new().set_num_format("dd/mm/yyyy");
        let day = ExcelDateTime::from_ymd(2025, 11, 2).unwrap();
        sheet.write_with_format(1, 1, &day, &date).unwrap();
        let time = Format::new().set_num_format("hh:mm");
        let hour = ExcelDateTime::from_hms(14, 30, 0).unwrap();
        sheet.write_with_format(1, 2, &hour, &time).unwrap();
        sheet.write_boolean(1, 3, true).unwrap();
    });
    let expected =
        r#"+573001234567|||||{"activo":"VERDADERO","cita":"2025-11-02","hora":"14:30:00"}"#;
    assert_eq!(shown(&read(&document).unwrap()), [expected]);
}

fn zipped(parts: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in parts {
        let options = zip::write::SimpleFileOptions::default();
        writer.start_file(*name, options).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn ods(table: &str) -> Vec<u8> {
    let content = format!(
        "<office:document-content><office:body><office:spreadsheet><table:table table:name=\"vacía\"/>\
         <table:table>{table}</table:table></office:spreadsheet></office:body></office:document-content>"
    );
    zipped(&[
        ("mimetype", "application/vnd.oasis.opendocument.spreadsheet"),
        ("META-INF/manifest.xml", "<manifest:manifest/>"),
        ("content.xml", &content),
    ])
}

fn ods_rows(lines: &str) -> String {
    let mut rows = String::new();
    for line in lines.lines() {
        rows.push_str("<table:table-row>");
        for text in line.split(',') {
            let _ = match text.parse::<f64>() {
                Ok(_) => write!(
                    rows,
                    "<table:table-cell office:value-type=\"float\" office:value=\"{text}\"><text:p>x</text:p></table:table-cell>"
                ),
                Err(_) if text.is_empty() => write!(rows, "<table:table-cell/>"),
                Err(_) => write!(
                    rows,
                    "<table:table-cell office:value-type=\"string\"><text:p>{text}</text:p></table:table-cell>"
                ),
            };
        }
        rows.push_str(
            "<table:table-cell table:number-columns-repeated=\"16000\"/></table:table-row>",
        );
    }
    rows
}

#[test]
fn ods_is_read_row_by_row() {
    gives_the_example(&ods(&ods_rows(EXAMPLE)));
    let rows = format!(
        "{}<table:table-row table:number-rows-repeated=\"1000000\"><table:table-cell/></table:table-row>\
         <table:table-row><table:table-cell office:value-type=\"string\">\
         <office:annotation><text:p>una nota</text:p></office:annotation>\
         <text:p>300<text:s/>123</text:p><text:p>4567</text:p></table:table-cell>\
         <table:table-cell office:value-type=\"string\"><text:p>P&#233;rez &amp; C&#xed;a</text:p></table:table-cell>\
         <table:table-cell office:value-type=\"date\" office:date-value=\"2025-11-02\"/></table:table-row>",
        ods_rows("celular,nombre,cita")
    );
    let imported = read(&ods(&rows)).unwrap();
    assert_eq!(
        shown(&imported),
        [r#"+573001234567|Pérez & Cía||||{"cita":"2025-11-02"}"#]
    );
}

/// A workbook of Excel 97, in its records, of texts and numbers alone.
fn xls(lines: &str) -> Vec<u8> {
    let record = |kind: u16, data: &[u8]| {
        let length = u16::try_from(data.len()).unwrap().to_le_bytes();
        [&kind.to_le_bytes()[..], &length, data].concat()
    };
    let bof = |kind: u8| record(0x0809, &[0, 6, kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let text = |text: &str| {
        let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let length = u16::try_from(wide.len() / 2).unwrap().to_le_bytes();
        [&length[..], &[1], &wide].concat()
    };
    let (mut shared, mut cells, mut count) = (vec![0; 8], Vec::new(), 0_u32);
    for (row, line) in (0_u16..).zip(lines.lines()) {
        for (column, word) in (0_u16..).zip(line.split(',')) {
            let at = [row.to_le_bytes(), column.to_le_bytes(), [0, 0]].concat();
            if let Ok(number) = word.parse::<f64>() {
                cells.extend(record(0x0203, &[at, number.to_le_bytes().into()].concat()));
            } else if !word.is_empty() {
                shared.extend(text(word));
                cells.extend(record(0x00fd, &[at, count.to_le_bytes().into()].concat()));
                count += 1;
            }
        }
    }
    let name = [&[7, 0][..], b"Sheet 1"].concat();
    let sheet_at = |at: u32| record(0x0085, &[&at.to_le_bytes()[..], &[0, 0], &name].concat());
    let after = [record(0x00fc, &shared), record(0x000a, &[])].concat();
    let globals = bof(5).len() + sheet_at(0).len() + after.len();
    let stream = [
        bof(5),
        sheet_at(u32::try_from(globals).unwrap()),
        after,
        bof(0x10),
        cells,
        record(0x000a, &[]),
    ];
    super::xls::wrapped(&stream.concat()).unwrap()
}

#[test]
fn xls_is_read() {
    gives_the_example(&xls(EXAMPLE));
}

#[test]
fn headers_are_known_in_both_languages_and_any_dress() {
    for (header, field) in [
        ("NAME", "name"),
        (" Nombre Completo ", "name"),
        ("Email", "email"),
        ("E-mail", "email"),
        ("CORREO ELECTRÓNICO", "email"),
        ("Company", "empresa"),
        ("empresa:", "empresa"),
        ("Position", "cargo"),
        ("CARGO", "cargo"),
    ] {
        let text = format!("Teléfono,{header}\n3001234567,valor\n");
        let client = read(text.as_bytes()).unwrap().clients.remove(0);
        let found = match field {
            "name" => Some(client.name),
            "email" => client.email,
            "empresa" => client.empresa,
            _ => client.cargo,
        };
        assert_eq!(found.as_deref(), Some("valor"), "{header}");
    }
    for header in [
        "phone",
        "PHONE_NUMBER",
        "Telefono",
        "TELÉFONO",
        "celular",
        "Móvil",
    ] {
        let text = format!("{header}\n3001234567\n");
        assert_eq!(read(text.as_bytes()).unwrap().clients.len(), 1, "{header}");
    }
    let twice = read(b"telefono,celular,a,a\n3001234567,3007654321,1,2\n").unwrap();
    let expected = r#"+573001234567|||||{"a":"1","a_2":"2","celular":"3007654321"}"#;
    assert_eq!(shown(&twice), [expected]);
}

#[test]
fn a_number_that_lost_digits_is_not_called() {
    let imported = read(b"telefono;nombre\n3.00123E+09;a\n3,0012E9;b\n").unwrap();
    assert_eq!((imported.clients.len(), imported.rejected.len()), (0, 2));
    assert!(
        imported
            .rejected
            .iter()
            .all(|it| it.reason.contains("científica"))
    );
}

#[test]
fn what_cannot_be_read_says_why() {
    let many = |rows: usize| format!("telefono\n{}", "3001234567\n".repeat(rows));
    let encrypted = {
        let mut file = cfb::CompoundFile::create(Cursor::new(Vec::new())).unwrap();
        file.create_stream("/EncryptedPackage").unwrap();
        file.into_inner().into_inner()
    };
    let locked = zipped(&[
        ("META-INF/manifest.xml", "<manifest:encryption-data/>"),
        ("content.xml", ""),
    ]);
    for (document, error) in [
        (&b""[..], Error::Empty),
        (b"\n\n", Error::Empty),
        (b"nombre,telefono\n", Error::Empty),
        (b"nombre,correo\nAna,a@example.com\n", Error::NoPhoneColumn),
        (b"%PDF-1.7\x00\x01", Error::Unreadable),
        (b"PK\x03\x04 and no more", Error::Unreadable),
        (
            &[0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1, 0],
            Error::Unreadable,
        ),
        (&encrypted, Error::Encrypted),
        (&locked, Error::Encrypted),
        (&zipped(&[("xl/workbook.bin", "")]), Error::Unreadable),
        (&zipped(&[("word/document.xml", "<w/>")]), Error::Unreadable),
        (many(super::ROWS_MAX + 1).as_bytes(), Error::TooManyRows),
    ] {
        let start = String::from_utf8_lossy(&document[..document.len().min(20)]).into_owned();
        assert_eq!(read(document).map(|_| ()), Err(error), "{start}");
    }
    let most = read(many(super::ROWS_MAX).as_bytes()).unwrap();
    assert_eq!(most.rejected.len(), super::ROWS_MAX - 1);
}

#[test]
fn a_small_document_that_says_it_is_large_is_refused() {
    let bomb = "x".repeat(300 << 20);
    assert_eq!(
        read(&zipped(&[("xl/media/a.png", &bomb)])).map(|_| ()),
        Err(Error::TooLarge)
    );
    drop(bomb);
    let promise = "<sst uniqueCount=\"99999999999\"><si/></sst>";
    assert_eq!(
        read(&zipped(&[("xl/sharedStrings.xml", promise)])).map(|_| ()),
        Err(Error::TooLarge)
    );
    let rows = format!(
        "{}<table:table-row table:number-rows-repeated=\"4000000000\">\
         <table:table-cell table:number-columns-repeated=\"4000000000\" office:value-type=\"float\" office:value=\"1\"/>\
         </table:table-row>",
        ods_rows("celular,nombre")
    );
    assert_eq!(read(&ods(&rows)).map(|_| ()), Err(Error::TooManyRows));
    // Dimensions of 2,000,000,000 rows and 255 columns.
    let dimensions = [
        0, 2, 14, 0, 0, 0, 0, 0, 0, 0x94, 0x35, 0x77, 0, 0, 255, 0, 0, 0,
    ];
    let document = super::xls::wrapped(&dimensions).unwrap();
    assert_eq!(read(&document).map(|_| ()), Err(Error::TooLarge));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_bytes_make_it_panic(
        kind in 0..4_usize,
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let magic: &[u8] = [&b""[..], b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"phone;x\n"][kind];
        let _ = read(&[magic, &bytes].concat());
    }

    #[test]
    fn no_damage_makes_it_panic(
        at in proptest::collection::vec((0..10_000_usize, any::<u8>()), 1..6),
        cut in 0..10_000_usize,
    ) {
        for mut document in [xls(EXAMPLE), ods(&ods_rows(EXAMPLE))] {
            for (at, byte) in &at {
                let length = document.len();
                document[at % length] = *byte;
            }
            let _ = read(&document);
            document.truncate(cut);
            let _ = read(&document);
        }
    }

    #[test]
    fn every_row_is_either_a_client_or_reported(
        cells in proptest::collection::vec("[0-9 +a-z]{1,14}", 1..40)
    ) {
        let text = format!("phone\n{}\n", cells.join("\n"));
        let rows = cells.iter().filter(|cell| !cell.trim().is_empty()).count();
        match read(text.as_bytes()) {
            Ok(imported) => prop_assert_eq!(imported.clients.len() + imported.rejected.len(), rows),
            Err(error) => prop_assert_eq!((error, rows), (Error::Empty, 0)),
        }
    }
}
