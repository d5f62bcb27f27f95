// What the rows that stay look like: how many, how long, which answers and languages; and what is left out.

import { Link } from "wouter";
import type { DataReport } from "../../api/types";
import { useText } from "../../i18n";
import { Note, Stat, useFormat } from "../../ui";
import styles from "./curation.module.css";
import { useLanguageName } from "./language_name";

type Bar = { name: string; count: number };

const MOST_LABELS = 12;

export function DataReportView({ report }: { report: DataReport }) {
  const t = useText();
  const { number } = useFormat();
  const languageName = useLanguageName();
  const tokens = report.prompt_tokens + report.answer_tokens;
  return (
    <section className={styles.report} aria-labelledby="data-report">
      <h3 id="data-report">{t("distill.data_report")}</h3>
      <div className={styles.figures}>
        <Stat
          label={t("distill.rows_stay")}
          value={number(report.kept)}
          more={t("distill.of_rows", { count: report.rows })}
        />
        <Stat label={t("distill.about_tokens")} value={number(tokens)} more={t("distill.about_tokens_more")} />
      </div>
      {report.notes.map((note) => (
        <Note key={note} tone="warn">
          <span className="said" lang="en">
            {note}
          </span>
        </Note>
      ))}
      <LeftOut report={report} />
      {report.lengths
        .filter(({ what }) => what === "prompt_characters" || what === "answer_characters")
        .map((one) => (
          <Bars
            key={one.what}
            title={t(one.what === "prompt_characters" ? "distill.prompt_lengths" : "distill.answer_lengths")}
            more={t("distill.median", { count: one.quantiles[2] ?? 0 })}
            bars={one.histogram.map(({ least, below, count }) => ({
              name: below - least > 1 ? `${number(least)} – ${number(below - 1)}` : number(least),
              count,
            }))}
          />
        ))}
      {report.labels && <Bars title={t("distill.labels")} bars={beginning(report.labels, t("distill.other_labels"))} />}
      {report.languages && (
        <Bars
          title={t("distill.languages_found")}
          bars={beginning(report.languages, t("distill.other_languages")).map(({ name, count }) => ({
            name: languageName(name),
            count,
          }))}
        />
      )}
    </section>
  );
}

function LeftOut({ report }: { report: DataReport }) {
  const t = useText();
  const { number } = useFormat();
  if (report.left_out.length === 0) return null;
  return (
    <div>
      <h4 className="field-label">{t("distill.left_out")}</h4>
      <dl className={styles.leftOut}>
        {report.left_out.map(({ reason, count, examples }) => (
          <div key={reason}>
            <dt>{t(`distill.reason_${reason}`)}</dt>
            <dd className="number">{number(count)}</dd>
            <dd className={styles.examples}>
              {examples.slice(0, 3).map((id, index) => (
                <Link key={id} href={`/completions?open=${encodeURIComponent(id)}`}>
                  {t("distill.example_number", { number: index + 1 })}
                </Link>
              ))}
            </dd>
          </div>
        ))}
      </dl>
    </div>
  );
}

/** Amounts beside each other; each bar says its number, so that nobody has to see it. */
function Bars({ title, more, bars }: { title: string; more?: string; bars: Bar[] }) {
  const { number } = useFormat();
  const most = Math.max(...bars.map(({ count }) => count), 1);
  return (
    <div>
      <h4 className="field-label">
        {title} {more && <span className={styles.more}>· {more}</span>}
      </h4>
      <dl className={styles.bars}>
        {bars.map(({ name, count }) => (
          <div key={name}>
            <dt className="said">{name || "–"}</dt>
            <dd>
              {count > 0 && <span className={styles.drawn} style={{ width: `${(75 * count) / most}%` }} />}
              <span className="number">{number(count)}</span>
            </dd>
          </div>
        ))}
      </dl>
    </div>
  );
}

/** The commonest, and all others as one. */
function beginning(bars: Bar[], others: string): Bar[] {
  const rest = bars.slice(MOST_LABELS).reduce((sum, { count }) => sum + count, 0);
  return rest ? [...bars.slice(0, MOST_LABELS), { name: others, count: rest }] : bars;
}
