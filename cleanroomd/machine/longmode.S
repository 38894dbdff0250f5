/*
 * The guest of the accelerator probe: enters long mode in ring 0, jumps to the upper half of the
 * address space, works there for a while and answers on the isa-debug-exit port, which ends QEMU.
 *
 * A flat Multiboot 1 image (address fields in the header, sections 3.1.2 and 3.1.3). The loader
 * hands over in 32-bit protected mode with flat segments, paging off and no stack (section 3.2).
 * Paging and long mode follow the AMD64 manual, volume 2, section 14.6.
 *
 * as --64 -o longmode.o longmode.S
 * ld -m elf_x86_64 -e start -Ttext=0x100000 -o longmode.elf longmode.o
 * objcopy -O binary -j .text longmode.elf longmode.bin
 */
        .set MAGIC,  0x1badb002
        .set FLAGS,  0x00010000            /* the address fields are valid: not an ELF file */
        .set TABLES, 0x00110000            /* three pages: PML4, PDPT, PD */
        .set UPPER,  0xffff800000000000
        .set PORT,   0xf4
        .set ANSWER, 0x2a
        .set TURNS,  1 << 25               /* 10 ms on a CPU, 0.1 s translated, 40 s interpreted */

        .set PRESENT_WRITABLE, 0x3
        .set LARGE,  0x80
        .set PAE,    0x20
        .set EFER,   0xc0000080
        .set LME,    0x100
        .set PG_PE,  0x80000001

        .text
        .code32
        .globl start
header: .long   MAGIC, FLAGS, -(MAGIC + FLAGS)
        .long   header, header, end, end, start

start:  cld
        mov     $TABLES, %edi
        mov     %edi, %cr3
        xor     %eax, %eax
        mov     $3 * 1024, %ecx
        rep stosl

        /* The first 2 MiB twice: at 0, where this runs, and at UPPER (entry 256 of the PML4). */
        mov     $TABLES + 0x1000 + PRESENT_WRITABLE, %eax
        mov     %eax, TABLES
        mov     %eax, TABLES + 256 * 8
        movl    $TABLES + 0x2000 + PRESENT_WRITABLE, TABLES + 0x1000
        movl    $LARGE + PRESENT_WRITABLE, TABLES + 0x2000

        mov     %cr4, %eax
        or      $PAE, %eax
        mov     %eax, %cr4
        mov     $EFER, %ecx
        rdmsr
        or      $LME, %eax
        wrmsr
        mov     %cr0, %eax
        or      $PG_PE, %eax
        mov     %eax, %cr0
        lgdt    pointer
        ljmp    $8, $long

        .code64
long:   movabs  $UPPER + upper, %rax
        jmp     *%rax

upper:  mov     $TURNS, %ecx
turn:   dec     %ecx
        jnz     turn

        /* The answer is made from bits 48 to 55 of the address that runs: right only in the upper half. */
        lea     upper(%rip), %rax
        shr     $48, %rax
        xor     $0xff ^ ANSWER, %al
        out     %al, $PORT
halt:   hlt
        jmp     halt

        .balign 8
gdt:    .quad   0
        .quad   0x00209a0000000000         /* code, 64 bits, ring 0 */
pointer:
        .word   pointer - gdt - 1
        .long   gdt
end:
