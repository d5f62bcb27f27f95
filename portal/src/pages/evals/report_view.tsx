// Teacher beside student: how well each run's model agrees, what it costs, and where it differs.

import type { Report, ReportSide } from "../../api/types";
import { useText } from "../../i18n";
import { Note } from "../../ui";
import { Disagreements } from "./disagreements";
import { Glance } from "./glance";
import { Headline } from "./headline";
import { Measured } from "./measured";
import { useNotes } from "./notes";
import { Pairs } from "./pairs";
import { Slices } from "./slices";

export function ReportView({ report }: { report: Report }) {
  const t = useText();
  const notes = useNotes(report);
  const compared = report.sides.filter((side) => side.agreement !== null);
  return (
    <>
      {notes.map((note) => (
        <Note key={note.text} tone={note.tone}>
          <span className="said">{note.text}</span>
        </Note>
      ))}
      {compared.length > 0 && (
        <section className="grid" aria-label={t("evals.agreement")}>
          {compared.map((side) => (
            <Headline key={side.run_id} side={side} report={report} />
          ))}
        </section>
      )}
      {report.sides.some((side) => side.graded + side.errored > 0) && <Glance report={report} />}
      {report.pairs.length > 0 && <Pairs report={report} />}
      {report.sides.map((side) => (
        <Details key={side.run_id} side={side} />
      ))}
      <Measured />
    </>
  );
}

function Details({ side }: { side: ReportSide }) {
  return (
    <>
      {side.slices.length > 0 && <Slices side={side} />}
      {side.worst.length > 0 && <Disagreements side={side} />}
    </>
  );
}
