// Lines over numbers or days, by uPlot. Colours follow the theme; a zoom stays while the data grow.

import { useEffect, useMemo, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { useTheme } from "../shell/theme";

export interface Series {
  label: string;
  /** A CSS colour variable, such as "--teacher". */
  color: string;
  values: (number | null)[];
  /** Axis: the left one, or a right one of its own scale (a share from 0 to 1). */
  axis?: "left" | "right";
  /** Draw the points, for a line of few values. */
  points?: boolean;
  dash?: boolean;
}

interface ChartProps {
  /** What the picture shows, for those who cannot see it. */
  label: string;
  x: number[];
  series: Series[];
  /** Whether x are seconds since the epoch. */
  time?: boolean;
  height?: number;
  xLabel?: string;
  format?: (value: number) => string;
  formatRight?: (value: number) => string;
}

export default function Chart(props: ChartProps) {
  const { label, x, series, time = false, height = 260, xLabel } = props;
  const frame = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const { shade } = useTheme();
  // The plot is made anew when its form changes; new values only enter it.
  const form = JSON.stringify([series.map(({ values, ...rest }) => rest), time, height, xLabel, shade]);
  const data = useMemo(() => [x, ...series.map((line) => line.values)] as uPlot.AlignedData, [x, series]);
  const latest = useRef({ props, data });
  latest.current = { props, data };

  // biome-ignore lint/correctness/useExhaustiveDependencies: `form` stands for all that it is made of
  useEffect(() => {
    const holder = frame.current;
    if (!holder) return;
    const made = new uPlot(optionsOf(latest.current.props, holder), latest.current.data, holder);
    plot.current = made;
    const watcher = new ResizeObserver(() => made.setSize({ width: holder.clientWidth, height }));
    watcher.observe(holder);
    return () => {
      watcher.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [form]);

  useEffect(() => {
    const made = plot.current;
    if (made) made.setData(data, !isZoomed(made));
    if (made && isZoomed(made)) made.redraw();
  }, [data]);

  return <div ref={frame} className="chart" role="img" aria-label={label} />;
}

/** Whether the reader looks at a part: then new values must not move what is seen. */
function isZoomed(plot: uPlot): boolean {
  const all = plot.data[0];
  const { min, max } = plot.scales.x ?? {};
  if (!all?.length || min == null || max == null) return false;
  return Boolean((plot as unknown as { zoomed?: boolean }).zoomed);
}

function optionsOf(props: ChartProps, holder: HTMLElement): uPlot.Options {
  const { series, time = false, height = 260, xLabel, format, formatRight } = props;
  const style = getComputedStyle(document.documentElement);
  const ink = resolved(holder, "--ink-soft");
  const line = resolved(holder, "--line");
  const font = `12px ${style.getPropertyValue("--font")}`;
  const axis = { stroke: ink, font, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
  const hasRight = series.some((one) => one.axis === "right");
  const shown = (write?: (value: number) => string) => (_: uPlot, value: number | null) =>
    value == null ? "–" : write ? write(value) : String(value);
  const splits = (write?: (value: number) => string) => (_: uPlot, values: number[]) =>
    values.map((value) => (write ? write(value) : String(value)));
  return {
    width: holder.clientWidth,
    height,
    scales: { x: { time }, ...(hasRight ? { right: { range: [0, 1] as uPlot.Range.MinMax } } : {}) },
    cursor: { drag: { x: true, y: false }, points: { size: 6 } },
    legend: { live: true },
    hooks: {
      // A drag zooms; a double click, which shows everything again, ends it.
      setSelect: [(plot) => mark(plot, plot.select.width > 0)],
      init: [(plot) => plot.over.addEventListener("dblclick", () => mark(plot, false))],
    },
    axes: [
      { ...axis, ...(xLabel ? { label: xLabel, labelFont: font, labelSize: 20 } : {}) },
      { ...axis, size: 64, ...(format ? { values: splits(format) } : {}) },
      ...(hasRight
        ? [{ ...axis, scale: "right", side: 1 as const, size: 52, grid: { show: false }, values: splits(formatRight) }]
        : []),
    ],
    series: [
      xLabel ? { label: xLabel } : {},
      ...series.map((one) => ({
        label: one.label,
        scale: one.axis === "right" ? "right" : "y",
        stroke: resolved(holder, one.color),
        width: 2,
        spanGaps: true,
        ...(one.dash ? { dash: [6, 4] } : {}),
        points: { show: Boolean(one.points), size: 6 },
        value: shown(one.axis === "right" ? formatRight : format),
      })),
    ],
  };
}

function mark(plot: uPlot, zoomed: boolean): void {
  (plot as unknown as { zoomed: boolean }).zoomed = zoomed;
}

/** A colour variable as the canvas understands it: `light-dark()` and the theme are worked out by the browser. */
function resolved(holder: HTMLElement, variable: string): string {
  const probe = document.createElement("span");
  probe.style.color = `var(${variable})`;
  holder.append(probe);
  const color = getComputedStyle(probe).color;
  probe.remove();
  return color;
}
